# SPDX-License-Identifier: Apache-2.0
"""Keys and values of the tokens before, in a ring of fixed capacity.

Each row counts its own tokens, so rows of different length share a batch, and
remembers where its document began, so attention never looks across documents.
Slot j holds the newest token before the present call whose position is
congruent to j modulo the capacity; nothing else need be stored.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.types import Array


class KeyValueCache(NamedTuple):
  """What a decoder remembers; every leaf has its batch axis first."""

  key_BLCGK: Array
  value_BLCGK: Array
  length_B: Array  # tokens seen since the carry was empty
  start_B: Array  # position at which the present document began


def empty_cache(
  batch_size: int,
  num_layers: int,
  capacity: int,
  num_heads: int,
  head_width: int,
  dtype: jnp.dtype,
) -> KeyValueCache:
  """Make a cache that has seen nothing."""
  shape = (batch_size, num_layers, capacity, num_heads, head_width)
  return KeyValueCache(
    key_BLCGK=jnp.zeros(shape, dtype),
    value_BLCGK=jnp.zeros(shape, dtype),
    length_B=jnp.zeros(batch_size, jnp.int32),
    start_B=jnp.zeros(batch_size, jnp.int32),
  )


def slot_positions(length_B: Array, capacity: int) -> Array:
  """Give the position held by every slot, negative where it holds none.

  >>> slot_positions(jnp.array([2, 5]), 4)
  [[0, 1, -2, -1], [4, 1, 2, 3]]
  """
  newest_B1 = length_B[:, None] - 1
  age_BC = jnp.mod(newest_B1 - jnp.arange(capacity), capacity)
  return newest_B1 - age_BC


def document_starts(
  positions_BT: Array, start_B: Array, resets_BT: Array | None
) -> Array:
  """Give for each token the position at which its document began.

  >>> document_starts([[4, 5, 6]], [1], [[False, True, False]])
  [[1, 5, 5]]
  """
  start_B1 = start_B[:, None]
  if resets_BT is None:
    return jnp.broadcast_to(start_B1, positions_BT.shape)
  starts_BT = jnp.where(resets_BT, positions_BT, start_B1)
  return jax.lax.cummax(starts_BT, axis=1)


def append(
  cache: KeyValueCache, key_BLTGK: Array, value_BLTGK: Array, starts_BT: Array
) -> KeyValueCache:
  """Store the keys and values of T new tokens over the oldest ones.

  No gradient flows through what is stored (Dai et al. 2019,
  arXiv:1901.02860).
  """
  capacity, num_new = cache.key_BLCGK.shape[2], key_BLTGK.shape[2]
  kept = min(capacity, num_new)
  offset_T = jnp.arange(num_new - kept, num_new)
  slots_BT = jnp.mod(cache.length_B[:, None] + offset_T, capacity)

  def store(row_LCGK: Array, new_LTGK: Array, slots_T: Array) -> Array:
    return row_LCGK.at[:, slots_T].set(
      new_LTGK[:, num_new - kept :].astype(row_LCGK.dtype), unique_indices=True
    )

  return jax.lax.stop_gradient(
    KeyValueCache(
      key_BLCGK=jax.vmap(store)(cache.key_BLCGK, key_BLTGK, slots_BT),
      value_BLCGK=jax.vmap(store)(cache.value_BLCGK, value_BLTGK, slots_BT),
      length_B=cache.length_B + num_new,
      start_B=starts_BT[:, -1],
    )
  )
