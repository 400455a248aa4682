# SPDX-License-Identifier: Apache-2.0
"""Scaled dot-product attention, by the fastest way that shapes allow."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.blocked_attention import blocked_attention
from lmjax.ops.matmul import wide
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
  blocks that need them, so no array grows with T · S. Plain causal attention
  in bfloat16 or float16 runs in cuDNN on a GPU.

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
  if jax.default_backend() != "gpu" or not (half and fits):
    return False
  device = jax.devices()[0]
  nvidia = "cuda" in device.client.platform_version.lower()
  return nvidia and float(device.compute_capability) >= 8.0


def attend_behind(
  query_BTHK: Array,
  key_BTGK: Array,
  value_BTGK: Array,
  cached: tuple[Array, Array],
  sight: Sight,
) -> Array:
  """Attend to new keys and to those of a cache before them.

  Args:
    query_BTHK: one query a position and head.
    key_BTGK: new keys.
    value_BTGK: new values.
    cached: keys and values of the tokens before, [B, G, C, K] each.
    sight: what each query sees of the cached keys, then of the new ones.
  """

  def all_keys(cached_BGCK: Array, new_BTGK: Array) -> Array:
    cached_BCGK = jnp.swapaxes(cached_BGCK, 1, 2).astype(new_BTGK.dtype)
    return jnp.concatenate([cached_BCGK, new_BTGK], axis=1)

  key_BSGK, value_BSGK = map(all_keys, cached, (key_BTGK, value_BTGK))
  return attend(query_BTHK, key_BSGK, value_BSGK, sight)


def attend_in(
  query_B1HK: Array, cached: tuple[Array, Array], sight: Sight
) -> Array:
  """Let one query a row attend to a cache where it stands, as in decoding.

  Args:
    query_B1HK: one query a head.
    cached: keys and values, [B, G, C, K] each, the query's own among them.
    sight: what the query sees of them.
  """
  batch, _, heads, width = query_B1HK.shape
  key_BGCK, value_BGCK = (x.astype(query_B1HK.dtype) for x in cached)
  groups = key_BGCK.shape[1]
  query_BGRK = query_B1HK.reshape(batch, groups, heads // groups, width)
  query_BGRK *= jnp.asarray(width**-0.5, query_BGRK.dtype)
  einsum = functools.partial(
    jnp.einsum, preferred_element_type=wide(key_BGCK.dtype)
  )
  scores_BGRC = einsum("bgrk,bgck->bgrc", query_BGRK, key_BGCK)
  seen_BC = sight.key_BS <= sight.query_BT
  seen_BC &= sight.key_BS >= sight.lowest_BT
  scores_BGRC = jnp.where(seen_BC[:, None, None], scores_BGRC, -jnp.inf)
  weights_BGRC = jax.nn.softmax(scores_BGRC).astype(value_BGCK.dtype)
  out_BGRK = einsum("bgrc,bgck->bgrk", weights_BGRC, value_BGCK)
  return out_BGRK.astype(query_B1HK.dtype).reshape(query_B1HK.shape)


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
