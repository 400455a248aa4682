# SPDX-License-Identifier: Apache-2.0
"""Attention of a text to itself, through a cache too, and to another text."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.attention_context import AttentionContext
from lmjax.layers.dense import Affine, Dense, Parameters, apply_affine
from lmjax.layers.dropout import Dropout
from lmjax.ops.attention import (
  append_keys,
  attend,
  attend_to_cache,
  attention_weights,
  average,
)
from lmjax.ops.attention_range import AttentionRange
from lmjax.ops.int8 import dense
from lmjax.ops.key_value_cache import write
from lmjax.ops.rotary import BASE, rotate
from lmjax.types import Array


class Attention(nn.Module):
  """Base class of multi-head self-attention and cross-attention.

  Attributes:
    num_heads: number H of query heads; divides the model width.
    qk_norm: makes a normalization of queries and keys by head, given a name;
      None for none.
    weight_dropout: dropout rate of the attention weights; nonzero rates
      materialize the weights, [B, H, T, S], in training.
    use_bias: whether the projections have biases.
    init_scale: standard deviation of the kernels at initialization.
    out_scale: standard deviation of the kernel that writes to the residual.
    initializer: initializer of the kernels; all but "normal" ignore the scales.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  num_heads: int
  qk_norm: functools.partial | None = None
  weight_dropout: float = 0.0
  use_bias: bool = False
  init_scale: float = 0.02
  out_scale: float = 0.02
  initializer: str = "normal"
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  def projection(self, width: int, heads: int, name: str) -> Parameters:
    """Make the parameters of a map from the model width to heads."""
    return Affine(
      (width,),
      (heads, width // self.num_heads),
      use_bias=self.use_bias,
      init_scale=self.init_scale,
      initializer=self.initializer,
      param_dtype=self.param_dtype,
      name=name,
    )()

  def normed(self, x_BTHK: Array, name: str) -> Array:
    """Normalise queries or keys, if that is wanted."""
    return self.qk_norm(name=name)(x_BTHK) if self.qk_norm else x_BTHK

  def look(
    self,
    query_BTHK: Array,
    seen: tuple[Array, Array],
    attention_range: AttentionRange | None,
    order_BS: Array | None = None,
    **how: Array | int | bool | None,
  ) -> Array:
    """Attend, with weights shown and dropped as is wanted.

    Args:
      query_BTHK: queries.
      seen: keys and values, [B, S, G, K] each.
      attention_range: the range of visible keys.
      order_BS: indices that sort the keys into the order of the text; None if
        they are in this order.
      **how: see `attend`.
    """
    key_BSGK, value_BSGK = seen
    drops = self.weight_dropout and self.has_rng("dropout")
    weights_BHTS = None
    if drops or self.shows_weights():
      weights_BHTS = attention_weights(
        query_BTHK, key_BSGK, attention_range, **how
      )
    if self.shows_weights():
      shown_BHTS = weights_BHTS
      if order_BS is not None:
        order_B11S = order_BS[:, None, None]
        shown_BHTS = jnp.take_along_axis(weights_BHTS, order_B11S, axis=3)
      self.sow("intermediates", "weights", shown_BHTS)
    if not drops:
      return attend(query_BTHK, key_BSGK, value_BSGK, attention_range, **how)
    weights_BHTS = Dropout(self.weight_dropout)(weights_BHTS)
    return average(weights_BHTS, value_BSGK)

  def output(self, attended_BTHK: Array) -> Array:
    """Map what the heads found to the model width."""
    heads, head_width = attended_BTHK.shape[-2:]
    return Dense(
      (heads * head_width,),
      num_contracted=2,
      use_bias=self.use_bias,
      init_scale=self.out_scale,
      initializer=self.initializer,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="out",
    )(attended_BTHK)

  def shows_weights(self) -> bool:
    """Say whether the caller wants to see the weights."""
    wanted = self.is_mutable_collection("intermediates")
    return wanted and not self.is_initializing()


class SelfAttention(Attention, kw_only=True):
  """Multi-head self-attention, with an optional key–value cache.

  With `mutable=["intermediates"]` the weights, [B, H, T, S], are sown as
  "weights", computed in addition to the fast path; a decoding step sows none.
  With a cache, S are its slots and the new tokens in the order of the text, the
  last of them last; slots that hold nothing to be seen come first.

  Attributes:
    num_kv_heads: number G of key and value heads; divides `num_heads`, and
      with fewer of them this is grouped-query attention.
    causal: whether positions attend to earlier ones only; applies when the
      attention context has no attention range.
    rotary: whether queries and keys are rotated by their positions.
    rope_base: base of the rotation's wavelengths; see lmjax.ops.rotary.rotate.
    window: how many of the newest positions are seen; 0 for all.
  """

  num_kv_heads: int
  causal: bool = True
  rotary: bool = False
  rope_base: float = BASE
  window: int = 0

  @nn.compact
  def __call__(
    self,
    x_BTD: Array,
    attention_context: AttentionContext,
    cached: tuple[Array, Array] | None,
  ) -> tuple[Array, tuple[Array, Array] | None]:
    """Attend from every position.

    Args:
      x_BTD: inputs.
      attention_context: positions, attention range and cache slots.
      cached: keys and values of the tokens before, [B, G, C, K] each, or None.

    Returns:
      The output, [B, T, D], and the cached keys and values with the new ones
      among them; None if there is no cache.
    """
    width = x_BTD.shape[-1]
    maps = (
      self.projection(width, self.num_heads, "query"),
      self.projection(width, self.num_kv_heads, "key"),
      self.projection(width, self.num_kv_heads, "value"),
    )
    query_BTHK, key_BTGK, value_BTGK = apply_affine(x_BTD, maps, 1, self.dtype)
    query_BTHK = self.normed(query_BTHK, "query_norm")
    key_BTGK = self.normed(key_BTGK, "key_norm")
    if self.rotary:
      positions_BT = attention_context.positions_BT
      query_BTHK = rotate(query_BTHK, positions_BT, self.rope_base)
      key_BTGK = rotate(key_BTGK, positions_BT, self.rope_base)
    seen, written = (key_BTGK, value_BTGK), None
    if cached is not None:
      written = tuple(
        write(old, x, attention_context.slots_BT)
        for old, x in zip(cached, seen, strict=True)
      )
      if x_BTD.shape[1] == 1:
        attended_B1HK = attend_to_cache(
          query_BTHK,
          written,
          attention_context.attention_range,
          attention_context.bias_HN,
        )
        return self.output(attended_B1HK), written
      if attention_context.order_BC is not None:
        order = attention_context.order_BC[:, None, :, None]
        cached = [
          jnp.take_along_axis(dense(old), order, axis=2) for old in cached
        ]
      seen = tuple(map(append_keys, cached, seen))
    attended_BTHK = self.look(
      query_BTHK,
      seen,
      attention_context.attention_range,
      None
      if cached is None
      else jnp.argsort(attention_context.attention_range.key_BS, axis=1),
      window=self.window,
      causal=self.causal,
      bias_HN=attention_context.bias_HN,
    )
    return self.output(attended_BTHK), written


class CrossAttention(Attention):
  """Attention to the keys and values of another text; see Memory."""

  @nn.compact
  def __call__(
    self,
    x_BTD: Array,
    memory: tuple[Array, Array],
    attention_range: AttentionRange | None,
  ) -> Array:
    """Attend from every position, [B, T, D] to [B, T, D].

    Args:
      x_BTD: inputs.
      memory: keys and values, [B, G, S, K] each.
      attention_range: what is seen of them; None for all.
    """
    maps = [self.projection(x_BTD.shape[-1], self.num_heads, "query")]
    (query_BTHK,) = apply_affine(x_BTD, maps, 1, self.dtype)
    query_BTHK = self.normed(query_BTHK, "query_norm")
    if x_BTD.shape[1] == 1 and not self.shows_weights():
      return self.output(attend_to_cache(query_BTHK, memory, attention_range))
    seen = tuple(jnp.swapaxes(x, 1, 2).astype(self.dtype) for x in memory)
    return self.output(
      self.look(query_BTHK, seen, attention_range, causal=False)
    )
