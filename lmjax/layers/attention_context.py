# SPDX-License-Identifier: Apache-2.0
"""Positions, masks and cache slots shared by the layers of one call."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from lmjax.ops.attention_range import AttentionRange, causal_range, run_ends
from lmjax.ops.key_value_cache import (
  KeyValueCache,
  document_starts,
  new_slots,
  slot_positions,
)
from lmjax.types import Array

# int distances [N] of queries from keys → what is added to scores, [H, N].
DistanceBias = Callable[[Array], Array]


class AttentionContext(NamedTuple):
  """Attention inputs that are the same for every layer of a call.

  Attributes:
    positions_BT: positions counted from the start of the token's document.
    starts_BT: start of that document, counted from the row's first token.
    attention_range: keys visible to each query, over cached and new keys, or
      over the cache alone for one new token per row; None if array positions
      decide (causal or full attention without documents or padding).
    slots_BT: where new keys are stored in the cache; None if there is none.
    order_BC: cache slots from the oldest token to the newest; None unless keys
      must be in text order, as for position biases.
    bias_HN: bias added to the scores of each distance, or None; see
      lmjax.ops.attention.
  """

  positions_BT: Array
  starts_BT: Array
  attention_range: AttentionRange | None
  slots_BT: Array | None = None
  order_BC: Array | None = None
  bias_HN: Array | None = None


def causal_context(
  shape: tuple[int, int],
  cache: KeyValueCache | None,
  resets_BT: Array | None,
  window: int,
  bidirectional_BT: Array | None = None,
  distance_bias: DistanceBias | None = None,
) -> AttentionContext:
  """Return the context of causal attention, with an optional cache and prefix.

  >>> context = causal_context((1, 4), None, [[0, 0, 1, 0]], window=0)
  >>> context.positions_BT, context.attention_range.lowest_BT
  [[0, 1, 0, 1]], [[0, 0, 2, 2]]

  Args:
    shape: batch size B and number of new tokens T.
    cache: keys and values of the previous tokens, or None.
    resets_BT: true at the first token of each document.
    window: number of newest positions visible to a query; 0 for all.
    bidirectional_BT: true on prefix tokens; the tokens of one contiguous
      prefix attend to each other in both directions (prefix LM).
    distance_bias: function from distances [N] to score biases [H, N].
  """
  batch, time = shape
  seen_B = jnp.zeros(batch, jnp.int32) if cache is None else cache.length_B
  start_B = jnp.zeros(batch, jnp.int32) if cache is None else cache.start_B
  rows_BT = seen_B[:, None] + jnp.arange(time)[None]
  starts_BT = document_starts(rows_BT, start_B, resets_BT)
  num_keys, keys_BS, slots_BT, order_BC = time, None, None, None
  if cache is not None:
    # The cache is a ring buffer: position p is stored in slot p mod C, so a
    # new token overwrites the oldest one when all C slots are full.
    num_slots = cache.keys_BGCK[0].shape[2]
    slots_BT = new_slots(seen_B, time, num_slots)
    if time == 1:
      # A decoding step writes its key before it attends, so the cache alone
      # holds every visible key.
      num_keys, keys_BS = num_slots, slot_positions(seen_B + 1, num_slots)
    else:
      slots_BC = slot_positions(seen_B, num_slots)
      # A decoding step sees C keys including its own. The first new token of a
      # chunk must see the same number, so the oldest slot is hidden.
      oldest_B1 = seen_B[:, None] - (num_slots - 1)
      slots_BC = jnp.where(slots_BC < oldest_B1, -1, slots_BC)
      if distance_bias is not None:
        places_BC = seen_B[:, None] + jnp.arange(num_slots)[None]
        order_BC = jnp.mod(places_BC, num_slots)
        slots_BC = jnp.take_along_axis(slots_BC, order_BC, axis=1)
      num_keys = num_slots + time
      keys_BS = jnp.concatenate([slots_BC, rows_BT], axis=1)
  elif bidirectional_BT is not None:
    keys_BS = rows_BT
  attention_range = None
  if keys_BS is not None or resets_BT is not None:
    attention_range = causal_range(rows_BT, starts_BT, keys_BS, window)
  if bidirectional_BT is not None:
    ends_BT = run_ends(rows_BT, starts_BT, bidirectional_BT)
    attention_range = attention_range._replace(highest_BT=ends_BT)
  bias_HN = _biases(distance_bias, time, num_keys)
  positions_BT = rows_BT - starts_BT
  return AttentionContext(
    positions_BT, starts_BT, attention_range, slots_BT, order_BC, bias_HN
  )


def bidirectional_context(
  shape: tuple[int, int],
  resets_BT: Array | None,
  mask_BT: Array | None,
  distance_bias: DistanceBias | None = None,
) -> AttentionContext:
  """Return the context in which each token attends to its whole document.

  >>> mask_BT = jnp.array([[True, True, False]])
  >>> bidirectional_context((1, 3), None, mask_BT).attention_range.key_BS
  [[0, 1, -1]]

  Args:
    shape: batch size B and sequence length T.
    resets_BT: true at the first token of each document.
    mask_BT: false on padding, which no token attends to.
    distance_bias: function from distances [N] to score biases [H, N].
  """
  batch, time = shape
  rows_BT = jnp.broadcast_to(jnp.arange(time), (batch, time))
  starts_BT = document_starts(rows_BT, rows_BT[:, 0], resets_BT)
  attention_range = None
  if resets_BT is not None or mask_BT is not None:
    ends_BT = run_ends(rows_BT, starts_BT, jnp.ones((batch, time), bool))
    keys_BS = rows_BT if mask_BT is None else jnp.where(mask_BT, rows_BT, -1)
    attention_range = AttentionRange(ends_BT, starts_BT, keys_BS)
  bias_HN = _biases(distance_bias, time, time)
  return AttentionContext(
    rows_BT - starts_BT, starts_BT, attention_range, bias_HN=bias_HN
  )


def cross_attention_range(
  mask_BS: Array | None, num_queries: int
) -> AttentionRange | None:
  """Return the range in which queries see every source key except padding.

  >>> cross_attention_range([[True, False]], num_queries=1)
  AttentionRange(highest_BT=[[0]], lowest_BT=[[0]], key_BS=[[0, -1]])
  """
  if mask_BS is None:
    return None
  # Every query covers position 0 only; padding keys get position -1, outside.
  zeros_BT = jnp.zeros((len(mask_BS), num_queries), jnp.int32)
  return AttentionRange(zeros_BT, zeros_BT, jnp.where(mask_BS, 0, -1))


def _biases(
  distance_bias: DistanceBias | None, num_queries: int, num_keys: int
) -> Array | None:
  if distance_bias is None:
    return None
  return distance_bias(jnp.arange(1 - num_queries, num_keys))
