# SPDX-License-Identifier: Apache-2.0
"""A memory of hidden vectors and of the tokens that followed them.

The ring counts as that of key_value_cache does. An entry is made when its token
is read: the token, at its position, and the hidden vector of the position
before it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.key_value_cache import document_starts, new_slots, slot_positions
from lmjax.types import Array

Found = tuple[Array, Array]  # weights and tokens of entries, [B, T, S] each


class Memory(NamedTuple):
  """What is remembered; every leaf has its batch axis first."""

  vectors_BCD: Array
  tokens_BC: Array
  last_BD: Array  # hidden vector whose next token is not known yet
  length_B: Array  # tokens processed since the memory was empty
  start_B: Array  # position of the first token of the current document


def empty_memory(
  batch_size: int, capacity: int, width: int, dtype: jnp.dtype
) -> Memory:
  """Make a memory that has seen nothing and holds `capacity` entries."""
  return Memory(
    vectors_BCD=jnp.zeros((batch_size, capacity, width), dtype),
    tokens_BC=jnp.zeros((batch_size, capacity), jnp.int32),
    last_BD=jnp.zeros((batch_size, width), dtype),
    length_B=jnp.zeros(batch_size, jnp.int32),
    start_B=jnp.zeros(batch_size, jnp.int32),
  )


def recall(
  memory: Memory,
  hidden_BTD: Array,
  tokens_BT: Array,
  resets_BT: Array | None,
  *,
  size: int,
  theta: float,
) -> tuple[Found, Memory]:
  """Find what followed hidden vectors like those of new tokens.

  Args:
    memory: what was before.
    hidden_BTD: hidden vectors of the new tokens.
    tokens_BT: the tokens, int.
    resets_BT: true where the memory is emptied before the token; None where it
      never is.
    size: how many of the newest entries are seen; the memory holds as many, or
      none if it is not needed afterwards.
    theta: factor of the inner products.

  Returns:
    For each position the softmax over the entries that it sees, all 0 if it
    sees none, with the tokens of all entries; and the memory with the new ones.
  """
  time, capacity = tokens_BT.shape[1], memory.tokens_BC.shape[1]
  rows_BT = memory.length_B[:, None] + jnp.arange(time)
  starts_BT = document_starts(rows_BT, memory.start_B, resets_BT)
  before_BTD = jnp.concatenate(
    [memory.last_BD[:, None], hidden_BTD[:, :-1]], axis=1
  )
  slots_BT = new_slots(memory.length_B, time, capacity)
  written = Memory(
    vectors_BCD=_write(memory.vectors_BCD, before_BTD, slots_BT),
    tokens_BC=_write(memory.tokens_BC, tokens_BT, slots_BT),
    last_BD=hidden_BTD[:, -1],
    length_B=memory.length_B + time,
    start_B=starts_BT[:, -1],
  )
  if time == 1 and capacity:  # in place: nothing reads what was before
    sources = [written.vectors_BCD]
    positions_BS = slot_positions(written.length_B, capacity)
    entries_BS = written.tokens_BC
  else:
    sources = [memory.vectors_BCD, before_BTD]
    slots_BC = slot_positions(memory.length_B, capacity)
    positions_BS = jnp.concatenate([slots_BC, rows_BT], axis=1)
    entries_BS = jnp.concatenate([memory.tokens_BC, tokens_BT], axis=1)
  scores = [
    jnp.einsum(
      "BTD,BSD->BTS", hidden_BTD, x_BSD, preferred_element_type=jnp.float32
    )
    for x_BSD in sources
  ]
  positions_B1S, rows_BT1 = positions_BS[:, None], rows_BT[..., None]
  visible_BTS = (positions_B1S > starts_BT[..., None]) & (
    (positions_B1S <= rows_BT1) & (positions_B1S > rows_BT1 - size)
  )
  weights_BTS = _softmax(theta * jnp.concatenate(scores, axis=2), visible_BTS)
  entries_BTS = jnp.broadcast_to(entries_BS[:, None], weights_BTS.shape)
  return (weights_BTS, entries_BTS), written


def rewind(memory: Memory, num_tokens: int) -> Memory:
  """Take the newest tokens out, to be read again in one call.

  Their entries are then written over, with the new hidden vectors. Older ones
  that they had taken the place of do not come back, so of what is read only the
  last token sees all that it should.
  """
  length_B = memory.length_B - num_tokens
  slots_B1 = new_slots(length_B, 1, memory.tokens_BC.shape[1])
  vectors_B1D = jnp.take_along_axis(
    memory.vectors_BCD, slots_B1[..., None], axis=1
  )
  # Where they are more than the capacity, the last does not see this one.
  return memory._replace(last_BD=vectors_B1D[:, 0], length_B=length_B)


def _softmax(scores: Array, visible: Array) -> Array:
  """Normalise over what is visible; nothing visible is all 0."""
  least = jnp.finfo(scores.dtype).min
  highest = jnp.max(jnp.where(visible, scores, least), axis=-1, keepdims=True)
  powers = jnp.where(visible, jnp.exp(scores - highest), 0.0)
  return powers / jnp.maximum(powers.sum(axis=-1, keepdims=True), 1e-30)


def _write(ring_BC: Array, new_BT: Array, slots_BT: Array) -> Array:
  """Store the newest of T new entries in the slots given."""
  number = slots_BT.shape[1]
  if not number:
    return ring_BC

  def write_row(row_C: Array, new_T: Array, slots_T: Array) -> Array:
    new_T = new_T[-number:].astype(row_C.dtype)
    return row_C.at[slots_T].set(new_T, unique_indices=True)

  if len(ring_BC) == 1:  # see decoding.generate: in place
    return write_row(ring_BC[0], new_BT[0], slots_BT[0])[None]
  return jax.vmap(write_row)(ring_BC, new_BT, slots_BT)


def mix(logits_BTV: Array, found: Found, share: float) -> Array:
  """Interpolate a model's distribution with that of a memory.

  Args:
    logits_BTV: the model's scores.
    found: what `recall` found.
    share: weight of the cache distribution if the cache is not empty.

  Returns:
    Logarithms of probabilities, float32 [B, T, V].
  """
  weights_BTS, entries_BTS = found
  weights_BTS = share * weights_BTS
  rows = jnp.indices(logits_BTV.shape[:2], sparse=True)
  cached_BTV = jnp.zeros(logits_BTV.shape, jnp.float32)
  cached_BTV = cached_BTV.at[*(i[..., None] for i in rows), entries_BTS].add(
    weights_BTS
  )
  kept_BT1 = 1.0 - jnp.sum(weights_BTS, axis=-1, keepdims=True)
  log_probs_BTV = jax.nn.log_softmax(logits_BTV) + jnp.log(kept_BT1)
  mixed_BTV = jnp.log(jnp.exp(log_probs_BTV) + cached_BTV)
  return jnp.where(cached_BTV > 0.0, mixed_BTV, log_probs_BTV)
