# SPDX-License-Identifier: Apache-2.0
"""Attention whose scores have a part for the distance of query and key."""

import jax
import jax.numpy as jnp

from lmjax.ops.attention_range import AttentionRange
from lmjax.ops.blocked_attention import HIDDEN
from lmjax.ops.matmul import wide
from lmjax.types import Array


def shift(scores_BHTS: Array) -> Array:
  """Move row t left by T - 1 - t places: from distances to places.

  Entries that are shifted in from the right belong to keys after the query.

  >>> shift([[[[3, 2, 1, 0], [7, 6, 5, 4]]]])
  [[[[2, 1, 0, 0], [7, 6, 5, 4]]]]

  Args:
    scores_BHTS: of each query at the distances S - 1, ..., 0.
  """
  *rows, time, number = scores_BHTS.shape
  padded = jnp.pad(scores_BHTS, ((0, 0),) * 3 + ((1, 0),))
  shifted = padded.reshape(*rows, number + 1, time)[..., 1:, :]
  return shifted.reshape(scores_BHTS.shape)


def relative_attention(
  query_BTHK: Array,
  key_BSHK: Array,
  value_BSHK: Array,
  distance_SHK: Array,
  content_bias_HK: Array,
  distance_bias_HK: Array,
  attention_range: AttentionRange,
) -> tuple[Array, Array]:
  """Average values by scores of contents and of distances.

  The score of query q and key k at a distance d is (q + u) · k + (q + v) · r(d)
  (Dai et al. 2019, arXiv:1901.02860). The last query and the last key have
  the same position.

  Args:
    query_BTHK: queries, not scaled yet.
    key_BSHK: keys.
    value_BSHK: values.
    distance_SHK: the vectors r of the distances S - 1, ..., 0.
    content_bias_HK: u.
    distance_bias_HK: v.
    attention_range: what each query sees.

  Returns:
    [B, T, H, K] in the dtype of the query, and the weights of the average,
    float32 [B, H, T, S].
  """
  dtype = query_BTHK.dtype
  precise = dict(preferred_element_type=wide(dtype))
  scores_BHTS = jnp.einsum(
    "bthk,bshk->bhts",
    query_BTHK + content_bias_HK[None, None],
    key_BSHK,
    **precise,
  )
  scores_BHTS += shift(
    jnp.einsum(
      "bthk,shk->bhts",
      query_BTHK + distance_bias_HK[None, None],
      distance_SHK,
      **precise,
    )
  )
  scores_BHTS *= query_BTHK.shape[-1] ** -0.5
  seen_BTS = (
    attention_range.key_BS[:, None] <= attention_range.highest_BT[..., None]
  )
  seen_BTS &= (
    attention_range.key_BS[:, None] >= attention_range.lowest_BT[..., None]
  )
  scores_BHTS = jnp.where(seen_BTS[:, None], scores_BHTS, HIDDEN)
  weights_BHTS = jax.nn.softmax(scores_BHTS)
  attended_BTHK = jnp.einsum(
    "bhts,bshk->bthk", weights_BHTS.astype(dtype), value_BSHK, **precise
  )
  return attended_BTHK.astype(dtype), weights_BHTS
