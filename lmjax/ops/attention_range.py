# SPDX-License-Identifier: Apache-2.0
"""Attention masks as ranges of positions, so that no mask is stored."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.types import Array


class AttentionRange(NamedTuple):
  """The keys that each query attends to: those between two positions.

  Attributes:
    highest_BT: highest visible position of each query, inclusive.
    lowest_BT: lowest visible position, inclusive.
    key_BS: position of each key, negative for an empty slot; None if these are
      `highest_BT`, so that each query attends up to its own position.
  """

  highest_BT: Array
  lowest_BT: Array
  key_BS: Array | None


def causal_range(
  positions_BT: Array,
  starts_BT: Array,
  keys_BS: Array | None = None,
  window: int = 0,
) -> AttentionRange:
  """Return the causal range within each token's own document.

  >>> causal_range([[0, 1, 2, 3]], [[0, 0, 0, 3]], window=2).lowest_BT
  [[0, 0, 1, 3]]

  Args:
    positions_BT: position of each token in its row.
    starts_BT: position of the first token of its document.
    keys_BS: positions of the keys; None for those of the tokens.
    window: maximum number of visible positions; 0 for all.
  """
  lowest_BT = starts_BT
  if window:
    lowest_BT = jnp.maximum(starts_BT, positions_BT - window + 1)
  return AttentionRange(positions_BT, lowest_BT, keys_BS)


def run_ends(
  positions_BT: Array, starts_BT: Array, bidirectional_BT: Array
) -> Array:
  """Return the last position of each token's run, or its own outside of runs.

  A run consists of adjacent bidirectional tokens of one document.

  >>> run_ends([[0, 1, 2, 3, 4]], [[0, 0, 0, 0, 4]], [[1, 1, 0, 1, 1]])
  [[1, 1, 2, 3, 4]]

  Args:
    positions_BT: position of each token in its row.
    starts_BT: position of the first token of its document.
    bidirectional_BT: whether tokens are visible to earlier tokens.
  """
  inside_BT = bidirectional_BT[:, :-1] & bidirectional_BT[:, 1:]
  inside_BT &= starts_BT[:, :-1] == starts_BT[:, 1:]
  inside_BT = jnp.pad(inside_BT, ((0, 0), (0, 1)))
  far = jnp.iinfo(positions_BT.dtype).max
  ends_BT = jnp.where(inside_BT, far, positions_BT)
  return jax.lax.cummin(ends_BT, axis=1, reverse=True)
