# SPDX-License-Identifier: Apache-2.0
"""Keys and values of the tokens before, in a ring of fixed capacity.

Each row counts its own tokens, so rows of different length share a batch, and
stores where its document starts, so attention never crosses documents.
Slot j holds the newest token whose position is congruent to j modulo the number
of slots; nothing else need be stored. There is a slot more than the capacity,
so that a decoding step can write its token first and then see as many before.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.int8 import Int8, quantize
from lmjax.types import Array


class KeyValueCache(NamedTuple):
  """What a decoder remembers; every leaf has its batch axis first.

  Each layer has its own arrays, with the heads before the slots: a decoding
  step then reads and writes them in place.
  """

  keys_BGCK: tuple[Array | Int8, ...]
  values_BGCK: tuple[Array | Int8, ...]
  length_B: Array  # tokens processed since the carry was empty
  start_B: Array  # position of the first token of the current document


def empty_cache(
  batch_size: int,
  num_layers: int,
  capacity: int,
  num_heads: int,
  head_width: int,
  dtype: jnp.dtype,
  int8: bool = False,
) -> KeyValueCache:
  """Make a cache that has seen nothing and holds `capacity` tokens.

  With `int8` its entries are in eight bits, with scales in `dtype`.
  """
  shape = (batch_size, num_heads, capacity + 1, head_width)
  zeros = [jnp.zeros(shape, dtype) for _ in range(2 * num_layers)]
  zeros = [quantize(x) for x in zeros] if int8 else zeros
  return KeyValueCache(
    keys_BGCK=tuple(zeros[:num_layers]),
    values_BGCK=tuple(zeros[num_layers:]),
    length_B=jnp.zeros(batch_size, jnp.int32),
    start_B=jnp.zeros(batch_size, jnp.int32),
  )


def slot_positions(length_B: Array, capacity: int) -> Array:
  """Give the position held by every slot, negative where it holds none.

  >>> slot_positions(jnp.array([2, 5]), 4)
  [[0, 1, -2, -1], [4, 1, 2, 3]]
  """
  newest_B1 = length_B[:, None] - 1
  age_BC = jnp.mod(newest_B1 - jnp.arange(capacity)[None], capacity)
  return newest_B1 - age_BC


def document_starts(
  positions_BT: Array, start_B: Array, resets_BT: Array | None
) -> Array:
  """Return for each token the position of the first token of its document.

  >>> document_starts([[4, 5, 6]], [1], [[False, True, False]])
  [[1, 5, 5]]
  """
  start_B1 = start_B[:, None]
  if resets_BT is None:
    return jnp.broadcast_to(start_B1, positions_BT.shape)
  starts_BT = jnp.where(resets_BT, positions_BT, start_B1)
  return jax.lax.cummax(starts_BT, axis=1)


def new_slots(length_B: Array, num_new: int, num_slots: int) -> Array:
  """Give the slot of each new token that is to be stored, the newest ones.

  >>> new_slots(jnp.array([2, 5]), 3, 4)
  [[2, 3, 0], [1, 2, 3]]
  """
  first = max(num_new - num_slots, 0)
  return jnp.mod(
    length_B[:, None] + jnp.arange(first, num_new)[None], num_slots
  )


def write(
  cached_BGCK: Array | Int8, new_BTGK: Array, slots_BT: Array
) -> Array | Int8:
  """Store the newest of T new keys, or values, in the slots given."""
  if isinstance(cached_BGCK, Int8):
    pairs = zip(cached_BGCK, quantize(new_BTGK), strict=True)
    return Int8(*(write(old, new, slots_BT) for old, new in pairs))

  def write_row(row_GCK: Array, new_TGK: Array, slots_T: Array) -> Array:
    new_GTK = jnp.swapaxes(new_TGK[-len(slots_T) :], 0, 1)
    return row_GCK.at[:, slots_T].set(
      new_GTK.astype(row_GCK.dtype), unique_indices=True
    )

  if len(cached_BGCK) == 1:  # see decoding.generate: in place
    return write_row(cached_BGCK[0], new_BTGK[0], slots_BT[0])[None]
  return jax.vmap(write_row)(cached_BGCK, new_BTGK, slots_BT)
