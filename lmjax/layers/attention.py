# SPDX-License-Identifier: Apache-2.0
"""Causal self-attention over a window and over a key/value cache."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.layers.dense import Affine, Dense, Parameters, apply_affine
from lmjax.ops.attention import Sight, attend, look_back
from lmjax.ops.key_value_cache import (
  KeyValueCache,
  document_starts,
  slot_positions,
)
from lmjax.ops.rotary import rotate
from lmjax.types import Array


class View(NamedTuple):
  """What every layer of a decoder may look at; made once a call.

  Attributes:
    positions_BT: positions counted from the start of the token's document.
    starts_BT: where that document began, counted from the row's first token.
    sight: who sees whom over cached and new keys; None for plain causal.
    cache: keys and values of the tokens before, or None.
  """

  positions_BT: Array
  starts_BT: Array
  sight: Sight | None
  cache: KeyValueCache | None


def make_view(
  tokens_BT: Array,
  cache: KeyValueCache | None,
  resets_BT: Array | None,
  window: int,
) -> View:
  """Work out positions and sight for new tokens behind a cache."""
  batch, time = tokens_BT.shape
  seen_B = jnp.zeros(batch, jnp.int32) if cache is None else cache.length_B
  start_B = jnp.zeros(batch, jnp.int32) if cache is None else cache.start_B
  rows_BT = seen_B[:, None] + jnp.arange(time)
  starts_BT = document_starts(rows_BT, start_B, resets_BT)
  sight = None
  if cache is not None:
    slots_BC = slot_positions(seen_B, cache.key_BLCGK.shape[2])
    keys_BS = jnp.concatenate([slots_BC, rows_BT], axis=1)
    sight = look_back(rows_BT, starts_BT, keys_BS, window)
  elif resets_BT is not None:
    sight = look_back(rows_BT, starts_BT, window=window)
  return View(rows_BT - starts_BT, starts_BT, sight, cache)


class SelfAttention(nn.Module):
  """Multi-head or grouped-query causal attention.

  Attributes:
    num_heads: number H of query heads; divides the model width.
    num_kv_heads: number G of key and value heads; divides `num_heads`.
    rotary: whether queries and keys are rotated by their positions.
    window: how many of the newest positions are seen; 0 for all.
    use_bias: whether the projections have biases.
    init_scale: standard deviation of the kernels at initialisation.
    out_scale: standard deviation of the kernel that writes to the residual.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  num_heads: int
  num_kv_heads: int
  rotary: bool = False
  window: int = 0
  use_bias: bool = False
  init_scale: float = 0.02
  out_scale: float = 0.02
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTD: Array, view: View, layer: Array
  ) -> tuple[Array, tuple[Array, Array] | None]:
    """Attend from every position to what its view shows.

    Args:
      x_BTD: inputs.
      view: positions, mask and cache.
      layer: index of this layer in the cache.

    Returns:
      The output, [B, T, D], and the new keys and values, [B, T, G, K] each,
      for the caller to store; None if there is no cache.
    """
    head_width = x_BTD.shape[-1] // self.num_heads

    def parameters(heads: int, name: str) -> Parameters:
      return Affine(
        x_BTD.shape[-1:],
        (heads, head_width),
        use_bias=self.use_bias,
        init_scale=self.init_scale,
        param_dtype=self.param_dtype,
        name=name,
      )()

    maps = (
      parameters(self.num_heads, "query"),
      parameters(self.num_kv_heads, "key"),
      parameters(self.num_kv_heads, "value"),
    )
    query_BTHK, key_BTGK, value_BTGK = apply_affine(x_BTD, maps, 1, self.dtype)
    if self.rotary:
      query_BTHK = rotate(query_BTHK, view.positions_BT)
      key_BTGK = rotate(key_BTGK, view.positions_BT)
    new, key_BSGK, value_BSGK = None, key_BTGK, value_BTGK
    if view.cache is not None:
      new = (key_BTGK, value_BTGK)
      key_BSGK = _extend(view.cache.key_BLCGK, layer, key_BTGK)
      value_BSGK = _extend(view.cache.value_BLCGK, layer, value_BTGK)
    attended_BTHK = attend(
      query_BTHK, key_BSGK, value_BSGK, view.sight, self.window
    )
    output_BTD = Dense(
      x_BTD.shape[-1:],
      num_contracted=2,
      use_bias=self.use_bias,
      init_scale=self.out_scale,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="out",
    )(attended_BTHK)
    return output_BTD, new


def _extend(cached_BLCGK: Array, layer: Array, new_BTGK: Array) -> Array:
  cached_BCGK = jax.lax.dynamic_index_in_dim(
    cached_BLCGK, layer, axis=1, keepdims=False
  )
  return jnp.concatenate([cached_BCGK.astype(new_BTGK.dtype), new_BTGK], axis=1)
