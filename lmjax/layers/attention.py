# SPDX-License-Identifier: Apache-2.0
"""Multi-head self-attention with a key–value cache, and cross-attention."""

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
    qk_norm: constructor of a norm of queries and keys by head, given a name;
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
    """Create the parameters of a projection from the model width to heads."""
    return Affine(
      (width,),
      (heads, width // self.num_heads),
      use_bias=self.use_bias,
      init_scale=self.init_scale,
      initializer=self.initializer,
      param_dtype=self.param_dtype,
      name=name,
    )()

  def normalize_heads(self, x_BTHK: Array, name: str) -> Array:
    """Normalize queries or keys, if there is a `qk_norm`."""
    return self.qk_norm(name=name)(x_BTHK) if self.qk_norm else x_BTHK

  def dot_product_attention(
    self,
    query_BTHK: Array,
    keys_values: tuple[Array, Array],
    attention_range: AttentionRange | None,
    order_BS: Array | None = None,
    **options: Array | int | bool | None,
  ) -> Array:
    """Attend, sowing and dropping out the weights if requested.

    Only these two cases store the weights, [B, H, T, S].

    Args:
      query_BTHK: queries.
      keys_values: keys and values, [B, S, G, K] each.
      attention_range: the range of visible keys.
      order_BS: indices that sort the keys into the order of the text; None if
        they are in this order.
      **options: see `attend`.
    """
    key_BSGK, value_BSGK = keys_values
    drops = self.weight_dropout and self.has_rng("dropout")
    weights_BHTS = None
    if drops or self.sows_weights():
      weights_BHTS = attention_weights(
        query_BTHK, key_BSGK, attention_range, **options
      )
    if self.sows_weights():
      sown_BHTS = weights_BHTS
      if order_BS is not None:
        order_B11S = order_BS[:, None, None]
        sown_BHTS = jnp.take_along_axis(weights_BHTS, order_B11S, axis=3)
      self.sow("intermediates", "weights", sown_BHTS)
    if not drops:
      return attend(
        query_BTHK, key_BSGK, value_BSGK, attention_range, **options
      )
    weights_BHTS = Dropout(self.weight_dropout)(weights_BHTS)
    return average(weights_BHTS, value_BSGK)

  def output(self, attended_BTHK: Array) -> Array:
    """Project the outputs of all heads to the model width."""
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

  def sows_weights(self) -> bool:
    """Return whether the caller collects the weights."""
    is_collected = self.is_mutable_collection("intermediates")
    return is_collected and not self.is_initializing()


class SelfAttention(Attention, kw_only=True):
  """Multi-head self-attention, with an optional key–value cache.

  With `mutable=["intermediates"]` the weights, [B, H, T, S], are sown as
  "weights", computed in addition to the fast path; a decoding step sows none.
  With a cache, S covers its slots and the new tokens, both in text order;
  invisible slots come first.

  Attributes:
    num_kv_heads: number G of key and value heads; divides `num_heads`, and
      with fewer of them this is grouped-query attention.
    causal: whether positions attend to earlier ones only; applies when the
      attention context has no attention range.
    rotary: whether queries and keys are rotated by their positions.
    rope_base: base of the rotation's wavelengths; see lmjax.ops.rotary.rotate.
    window: number of newest positions visible to a query; 0 for all.
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
    cache: tuple[Array, Array] | None,
  ) -> tuple[Array, tuple[Array, Array] | None]:
    """Attend to all visible positions.

    Args:
      x_BTD: inputs.
      attention_context: positions, attention range and cache slots.
      cache: keys and values of the tokens before, [B, G, C, K] each, or None.

    Returns:
      The output, [B, T, D], and the updated cache or None.
    """
    width = x_BTD.shape[-1]
    maps = (
      self.projection(width, self.num_heads, "query"),
      self.projection(width, self.num_kv_heads, "key"),
      self.projection(width, self.num_kv_heads, "value"),
    )
    query_BTHK, key_BTGK, value_BTGK = apply_affine(x_BTD, maps, 1, self.dtype)
    query_BTHK = self.normalize_heads(query_BTHK, "query_norm")
    key_BTGK = self.normalize_heads(key_BTGK, "key_norm")
    if self.rotary:
      positions_BT = attention_context.positions_BT
      query_BTHK = rotate(query_BTHK, positions_BT, self.rope_base)
      key_BTGK = rotate(key_BTGK, positions_BT, self.rope_base)
    keys_values, new_cache = (key_BTGK, value_BTGK), None
    if cache is not None:
      # Keys are cached after rotation: scores of rotary positions depend on
      # distances only, so cached keys stay valid for all later queries.
      new_cache = tuple(
        write(old, x, attention_context.slots_BT)
        for old, x in zip(cache, keys_values, strict=True)
      )
      if x_BTD.shape[1] == 1:
        # A decoding step attends to the cache in place, without copying it.
        attended_B1HK = attend_to_cache(
          query_BTHK,
          new_cache,
          attention_context.attention_range,
          attention_context.bias_HN,
        )
        return self.output(attended_B1HK), new_cache
      # A chunk attends to the old cache and its own keys: writing it may
      # overwrite slots that its first queries still attend to.
      if attention_context.order_BC is not None:
        order = attention_context.order_BC[:, None, :, None]
        cache = [
          jnp.take_along_axis(dense(old), order, axis=2) for old in cache
        ]
      keys_values = tuple(map(append_keys, cache, keys_values))
    attended_BTHK = self.dot_product_attention(
      query_BTHK,
      keys_values,
      attention_context.attention_range,
      None
      if cache is None
      else jnp.argsort(attention_context.attention_range.key_BS, axis=1),
      window=self.window,
      causal=self.causal,
      bias_HN=attention_context.bias_HN,
    )
    return self.output(attended_BTHK), new_cache


class CrossAttention(Attention):
  """Multi-head attention to an encoder's keys and values.

  The encoder–decoder model projects them once per source; see
  lmjax.models.encoder_decoder.Memory.
  """

  @nn.compact
  def __call__(
    self,
    x_BTD: Array,
    memory: tuple[Array, Array],
    attention_range: AttentionRange | None,
  ) -> Array:
    """Attend to a memory, [B, T, D] to [B, T, D].

    Args:
      x_BTD: inputs.
      memory: keys and values, [B, G, S, K] each.
      attention_range: the range of visible keys; None for all.
    """
    maps = [self.projection(x_BTD.shape[-1], self.num_heads, "query")]
    (query_BTHK,) = apply_affine(x_BTD, maps, 1, self.dtype)
    query_BTHK = self.normalize_heads(query_BTHK, "query_norm")
    if x_BTD.shape[1] == 1 and not self.sows_weights():
      return self.output(attend_to_cache(query_BTHK, memory, attention_range))
    keys_values = tuple(
      jnp.swapaxes(x_BGSK, 1, 2).astype(self.dtype) for x_BGSK in memory
    )
    return self.output(
      self.dot_product_attention(
        query_BTHK, keys_values, attention_range, causal=False
      )
    )
