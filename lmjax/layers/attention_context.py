# SPDX-License-Identifier: Apache-2.0
"""What the layers of a Transformer look at, worked out once a call."""

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
  """What every layer may look at.

  Attributes:
    positions_BT: positions counted from the start of the token's document.
    starts_BT: where that document began, counted from the row's first token.
    attention_range: keys visible to each query, over cached and new keys, or
      over the cache alone for one new token per row; None if array positions
      decide (causal or full attention without documents or padding).
    slots_BT: where new keys are stored in the cache; None if there is none.
    order_BC: the slots of the cache from its oldest token on, where keys must
      stand in the order of the text; None elsewhere.
    bias_HN: what is added to the scores of each distance, or None; see
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
  """Let new tokens behind a cache look back, and forth within runs.

  Args:
    shape: number of rows and of new tokens in each.
    cache: keys and values of those before, or None.
    resets_BT: true where a document begins.
    window: how many of the newest positions are seen; 0 for all.
    bidirectional_BT: true on prefixes, each a run of tokens that all see each
      other.
    distance_bias: makes what is added to the scores of distances.
  """
  batch, time = shape
  seen_B = jnp.zeros(batch, jnp.int32) if cache is None else cache.length_B
  start_B = jnp.zeros(batch, jnp.int32) if cache is None else cache.start_B
  rows_BT = seen_B[:, None] + jnp.arange(time)
  starts_BT = document_starts(rows_BT, start_B, resets_BT)
  num_keys, keys_BS, slots_BT, order_BC = time, None, None, None
  if cache is not None:
    num_slots = cache.keys_BGCK[0].shape[2]
    slots_BT = new_slots(seen_B, time, num_slots)
    if time == 1:  # its own key is in the cache by then
      num_keys, keys_BS = num_slots, slot_positions(seen_B + 1, num_slots)
    else:
      slots_BC = slot_positions(seen_B, num_slots)
      oldest_B1 = seen_B[:, None] - (num_slots - 1)  # one slot is for the above
      slots_BC = jnp.where(slots_BC < oldest_B1, -1, slots_BC)
      if distance_bias is not None:
        places_BC = seen_B[:, None] + jnp.arange(num_slots)
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
  """Let each token see all of its document.

  Args:
    shape: number of rows and of tokens in each.
    resets_BT: true where a document begins.
    mask_BT: false on padding, which nobody sees.
    distance_bias: makes what is added to the scores of distances.
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
  """Let queries see all of a memory but its padding, where the mask is false.

  >>> cross_attention_range([[True, False]], num_queries=1)
  AttentionRange(highest_BT=[[0]], lowest_BT=[[0]], key_BS=[[0, -1]])
  """
  if mask_BS is None:
    return None
  zeros_BT = jnp.zeros((len(mask_BS), num_queries), jnp.int32)
  return AttentionRange(zeros_BT, zeros_BT, jnp.where(mask_BS, 0, -1))


def _biases(
  distance_bias: DistanceBias | None, num_queries: int, num_keys: int
) -> Array | None:
  if distance_bias is None:
    return None
  return distance_bias(jnp.arange(1 - num_queries, num_keys))
