# SPDX-License-Identifier: Apache-2.0
"""Scaled dot-product attention and the masks that it is called with."""

import jax

from lmjax.types import Array


def attend(
  query_BTHK: Array,
  key_BSGK: Array,
  value_BSGK: Array,
  mask_BTS: Array | None = None,
) -> Array:
  """Average values by the softmax of query–key products.

  Vaswani et al. 2017 (arXiv:1706.03762); with fewer key heads than query
  heads, grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245). The
  softmax is computed in float32.

  Args:
    query_BTHK: one query a position and head.
    key_BSGK: keys; G divides H.
    value_BSGK: values.
    mask_BTS: true where the query at T may see the key at S; None for the
      causal mask over equal positions (S = T).

  Returns:
    The attended values, [B, T, H, K] in the dtype of the query.
  """
  mask = None if mask_BTS is None else mask_BTS[:, None]
  return jax.nn.dot_product_attention(
    query_BTHK, key_BSGK, value_BSGK, mask=mask, is_causal=mask_BTS is None
  )


def document_mask(
  query_positions_BT: Array, query_starts_BT: Array, key_positions_BS: Array
) -> Array:
  """Let each token see its own document up to itself.

  >>> document_mask([[0, 1, 2]], [[0, 0, 2]], [[0, 1, 2]])[0]
  [[1, 0, 0],
   [1, 1, 0],
   [0, 0, 1]]
  """
  key_B1S = key_positions_BS[:, None, :]
  seen = key_B1S <= query_positions_BT[:, :, None]
  return seen & (key_B1S >= query_starts_BT[:, :, None])
