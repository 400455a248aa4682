# SPDX-License-Identifier: Apache-2.0
"""Scaled dot-product attention, by the fastest way that shapes allow."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.blocked_attention import blocked_attention
from lmjax.types import Array


class Sight(NamedTuple):
  """What each query sees: keys from a lowest position up to its own.

  Attributes:
    query_BT: position of each query.
    lowest_BT: lowest position that it sees.
    key_BS: position of each key, negative for none; None if they are those of
      the queries.
  """

  query_BT: Array
  lowest_BT: Array
  key_BS: Array | None


def attend(
  query_BTHK: Array,
  key_BSGK: Array,
  value_BSGK: Array,
  sight: Sight | None = None,
  window: int = 0,
) -> Array:
  """Average values by the softmax of query–key products.

  Vaswani et al. 2017 (arXiv:1706.03762); with fewer key heads than query
  heads, grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245); with
  a window, sliding-window attention (Beltagy et al. 2020, arXiv:2004.05150).
  The softmax is computed in float32. Masks are made of positions inside the
  blocks that need them, so no array grows with T · S, except for one query a
  row, as in decoding. Plain causal attention in bfloat16 or float16 runs in
  cuDNN on a GPU.

  Args:
    query_BTHK: one query a position and head.
    key_BSGK: keys; G divides H.
    value_BSGK: values.
    sight: what each query sees; None for causal attention over equal places
      (S = T).
    window: how many of the newest positions are seen; 0 for all. A sight has
      it in its lowest positions already.

  Returns:
    The attended values, [B, T, H, K] in the dtype of the query.
  """
  if query_BTHK.shape[1] == 1 and sight is not None:
    return _attend_from_one(query_BTHK, key_BSGK, value_BSGK, sight)
  if sight is not None:
    aligned = sight.key_BS is None
    keys_BS = sight.query_BT if aligned else sight.key_BS
    return blocked_attention(
      query_BTHK,
      key_BSGK,
      value_BSGK,
      (sight.query_BT, sight.lowest_BT, keys_BS),
      aligned=aligned,
      window=window,
    )
  if _cudnn_takes(query_BTHK):
    return jax.nn.dot_product_attention(
      query_BTHK,
      key_BSGK,
      value_BSGK,
      is_causal=True,
      local_window_size=(window - 1, 0) if window else None,
      implementation="cudnn",
    )
  return blocked_attention(query_BTHK, key_BSGK, value_BSGK, window=window)


def _cudnn_takes(query_BTHK: Array) -> bool:
  half = query_BTHK.dtype in (jnp.bfloat16, jnp.float16)
  width = query_BTHK.shape[-1]
  fits = width % 8 == 0 and width <= 128
  return jax.default_backend() == "gpu" and half and fits


def _attend_from_one(
  query_B1HK: Array, key_BSGK: Array, value_BSGK: Array, sight: Sight
) -> Array:
  keys_BS = sight.query_BT if sight.key_BS is None else sight.key_BS
  seen_BS = (keys_BS <= sight.query_BT) & (keys_BS >= sight.lowest_BT)
  return jax.nn.dot_product_attention(
    query_B1HK, key_BSGK, value_BSGK, mask=seen_BS[:, None, None]
  )


def look_back(
  positions_BT: Array,
  starts_BT: Array,
  keys_BS: Array | None = None,
  window: int = 0,
) -> Sight:
  """Let each token see its own document up to itself.

  >>> look_back([[0, 1, 2, 3]], [[0, 0, 0, 3]], window=2).lowest_BT
  [[0, 0, 1, 3]]

  Args:
    positions_BT: position of each token in its row.
    starts_BT: position at which its document began.
    keys_BS: positions of the keys; None for those of the tokens.
    window: how many positions are seen at most; 0 for all.
  """
  lowest_BT = starts_BT
  if window:
    lowest_BT = jnp.maximum(starts_BT, positions_BT - window + 1)
  return Sight(positions_BT, lowest_BT, keys_BS)
