# SPDX-License-Identifier: Apache-2.0
"""Scaled dot-product attention; selects the fastest implementation.

Dimension letters:

    R  query heads that share a key and value head: H / G
"""

import functools

import jax
import jax.numpy as jnp

from lmjax.ops.attention_range import AttentionRange
from lmjax.ops.blocked_attention import HIDDEN, blocked_attention
from lmjax.ops.int8 import Int8, dense
from lmjax.ops.matmul import wide
from lmjax.ops.toeplitz import spread
from lmjax.types import Array


def attend(
  query_BTHK: Array,
  key_BSGK: Array,
  value_BSGK: Array,
  attention_range: AttentionRange | None = None,
  window: int = 0,
  causal: bool = True,
  bias_HN: Array | None = None,
) -> Array:
  """Average values by the softmax of query–key products.

  Vaswani et al. 2017 (arXiv:1706.03762); with fewer key heads than query
  heads, grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245); with
  a window, sliding-window attention (Beltagy et al. 2020, arXiv:2004.05150).
  The softmax is computed in float32. Masks are made of positions inside the
  blocks that need them, so no array grows with T · S. Attention in bfloat16 or
  float16 without an attention range or bias uses cuDNN on a GPU.

  Args:
    query_BTHK: one query per position and head.
    key_BSGK: keys; G divides H.
    value_BSGK: values.
    attention_range: the range of keys of each query; None if it follows from
      `causal` and `window`.
    window: number of newest positions that are visible; 0 for all. An attention
      range includes it already.
    causal: without an attention range, whether each query attends to keys up to
      its own position (S = T) or to all keys.
    bias_HN: bias of the scores of each distance, N = S + T - 1; see
      blocked_attention.

  Returns:
    The attended values, [B, T, H, K] in the dtype of the query.
  """
  positions, aligned = None, causal
  if attention_range is not None:
    aligned = attention_range.key_BS is None
    keys_BS = attention_range.highest_BT if aligned else attention_range.key_BS
    positions = (attention_range.highest_BT, attention_range.lowest_BT, keys_BS)
  elif bias_HN is None and _cudnn_takes(query_BTHK):
    return jax.nn.dot_product_attention(
      query_BTHK,
      key_BSGK,
      value_BSGK,
      is_causal=causal,
      local_window_size=(window - 1, 0) if window else None,
      implementation="cudnn",
    )
  return blocked_attention(
    query_BTHK,
    key_BSGK,
    value_BSGK,
    positions,
    bias_HN=bias_HN,
    aligned=aligned,
    window=window,
  )


def attention_weights(
  query_BTHK: Array,
  key_BSGK: Array,
  attention_range: AttentionRange | None = None,
  window: int = 0,
  causal: bool = True,
  bias_HN: Array | None = None,
) -> Array:
  """Return the weights of `attend` for inspection, float32 [B, H, T, S]."""
  batch, time, heads, width = query_BTHK.shape
  num_keys, groups = key_BSGK.shape[1:3]
  scaled = query_BTHK * jnp.asarray(width**-0.5, query_BTHK.dtype)
  scores_BGRTS = jnp.einsum(
    "btgrk,bsgk->bgrts",
    scaled.reshape(batch, time, groups, heads // groups, width),
    key_BSGK,
    preferred_element_type=wide(key_BSGK.dtype),
  )
  scores_BHTS = scores_BGRTS.reshape(batch, heads, time, num_keys)
  if bias_HN is not None:
    scores_BHTS += jnp.swapaxes(spread(bias_HN, num_keys), 1, 2)[None]
  if attention_range is not None:
    keys_BS = (
      attention_range.highest_BT
      if attention_range.key_BS is None
      else attention_range.key_BS
    )
    visible_BTS = keys_BS[:, None] <= attention_range.highest_BT[..., None]
    visible_BTS &= keys_BS[:, None] >= attention_range.lowest_BT[..., None]
  elif causal:
    visible_BTS = jnp.tril(jnp.ones((1, time, num_keys), bool))
    visible_BTS = jnp.triu(visible_BTS, 1 - window if window else -time)
  else:
    return jax.nn.softmax(scores_BHTS)
  return jax.nn.softmax(scores_BHTS, where=visible_BTS[:, None])


def average(weights_BHTS: Array, value_BSGK: Array) -> Array:
  """Average values by given weights, [B, T, H, K] in their dtype."""
  batch, heads, time, num_keys = weights_BHTS.shape
  groups, width = value_BSGK.shape[2:]
  weights_BGRTS = weights_BHTS.reshape(batch, groups, -1, time, num_keys)
  out_BTGRK = jnp.einsum(
    "bgrts,bsgk->btgrk",
    weights_BGRTS.astype(value_BSGK.dtype),
    value_BSGK,
    preferred_element_type=wide(value_BSGK.dtype),
  )
  shape = (batch, time, heads, width)
  return out_BTGRK.reshape(shape).astype(value_BSGK.dtype)


def _cudnn_takes(query_BTHK: Array) -> bool:
  half = query_BTHK.dtype in (jnp.bfloat16, jnp.float16)
  width = query_BTHK.shape[-1]
  fits = width % 8 == 0 and width <= 128
  if jax.default_backend() != "gpu" or not (half and fits):
    return False
  device = jax.devices()[0]
  nvidia = "cuda" in device.client.platform_version.lower()
  return nvidia and float(device.compute_capability) >= 8.0


def append_keys(cached_BGCK: Array | Int8, new_BTGK: Array) -> Array:
  """Append keys or values to those of a cache, [B, C + T, G, K]."""
  cached_BGCK = dense(cached_BGCK, new_BTGK.dtype)
  cached_BCGK = jnp.swapaxes(cached_BGCK, 1, 2)
  return jnp.concatenate([cached_BCGK, new_BTGK], axis=1)


def attend_to_cache(
  query_B1HK: Array,
  cached: tuple[Array | Int8, Array | Int8],
  attention_range: AttentionRange | None,
  bias_HN: Array | None = None,
) -> Array:
  """Attend from one query per row to a cache in its own layout, as in decoding.

  Args:
    query_B1HK: one query per head.
    cached: keys and values, [B, G, C, K] each, including those of the query, in
      any order.
    attention_range: the range of visible keys; None for all.
    bias_HN: bias of the scores of each distance from the highest visible
      position, from 0 to C - 1, N = C.
  """
  batch, _, heads, width = query_B1HK.shape
  key_BGCK, value_BGCK = (dense(x, query_B1HK.dtype) for x in cached)
  groups = key_BGCK.shape[1]
  query_BGRK = query_B1HK.reshape(batch, groups, heads // groups, width)
  query_BGRK *= jnp.asarray(width**-0.5, query_BGRK.dtype)
  einsum = functools.partial(
    jnp.einsum, preferred_element_type=wide(key_BGCK.dtype)
  )
  scores_BGRC = einsum("bgrk,bgck->bgrc", query_BGRK, key_BGCK)
  if bias_HN is not None:
    distance_BC = attention_range.highest_BT - attention_range.key_BS
    bias_HBC = jnp.take(bias_HN, distance_BC, axis=1, mode="clip")
    scores_BGRC += jnp.moveaxis(bias_HBC, 1, 0).reshape(scores_BGRC.shape)
  if attention_range is not None:
    visible_BC = attention_range.key_BS <= attention_range.highest_BT
    visible_BC &= attention_range.key_BS >= attention_range.lowest_BT
    scores_BGRC = jnp.where(visible_BC[:, None, None], scores_BGRC, HIDDEN)
  weights_BGRC = jax.nn.softmax(scores_BGRC).astype(value_BGCK.dtype)
  out_BGRK = einsum("bgrc,bgck->bgrk", weights_BGRC, value_BGCK)
  return out_BGRK.astype(query_B1HK.dtype).reshape(query_B1HK.shape)
