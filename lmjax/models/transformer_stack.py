# SPDX-License-Identifier: Apache-2.0
"""The part of every Transformer between token embeddings and logits."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError, check_choice
from lmjax.layers.attention import CrossAttention, SelfAttention
from lmjax.layers.attention_context import (
  AttentionContext,
  DistanceBias,
  bidirectional_context,
)
from lmjax.layers.dropout import Dropout
from lmjax.layers.feedforward import FEED_FORWARDS, FeedForward
from lmjax.layers.layer_stack import (
  apply_layers,
  choose_layer_execution,
  make_layers,
)
from lmjax.layers.moe import Experts, MixtureOfExperts
from lmjax.layers.norms import normalization
from lmjax.layers.position_bias import RelativeBias, linear_biases
from lmjax.layers.positions import LearnedPositions, sinusoids
from lmjax.layers.transformer_block import NORM_POSITIONS, Block
from lmjax.ops.attention_range import AttentionRange
from lmjax.ops.rotary import BASE
from lmjax.types import Array, PyTree

# Absolute positions are counted from the start of a text, which limits its
# length; the other kinds depend on distances only and have no limit.
ABSOLUTE_POSITIONS = ("learned", "sinusoidal")
POSITIONS = (*ABSOLUTE_POSITIONS, "rotary", "relative", "alibi", "none")
QK_NORMS = ("none", "layer", "layer_no_bias", "rms")


class TransformerStack(nn.Module, kw_only=True):
  """Position encoding, L blocks and a final norm: [B, T, D] to [B, T, D].

  Attributes:
    width: model width D.
    num_layers: number of blocks L.
    num_heads: number of query heads H; divides `width`.
    num_kv_heads: number of key and value heads G; divides `num_heads`. Fewer
      of them is grouped-query attention (Ainslie et al. 2023,
      arXiv:2305.13245).
    feed_forward: one of FEED_FORWARDS.
    feed_forward_width: inner width F, of each expert in a mixture.
    experts: the mixture of experts that replaces each feed-forward layer; None
      for dense layers.
    norm: one of NORMS.
    norm_position: "pre" or "post"; see Block. "pre" has a final norm after the
      last block, because nothing else normalizes the residual stream.
    qk_norm: norm of queries and keys by head (Henry et al. 2020,
      arXiv:2010.04245; Dehghani et al. 2023, arXiv:2302.05442), or "none".
    norm_epsilon: added to the variance in all norms; 0 for the default of the
      norm; see lmjax.layers.norms.normalization.
    positions: one of POSITIONS: "learned" or "sinusoidal" vectors added to the
      embeddings, "rotary" rotations of queries and keys, "relative" (T5) or
      "alibi" biases of the attention scores, or "none".
    rope_base: base of the wavelengths of "rotary" positions.
    max_context: capacity of the cache in tokens, and number of learned
      positions.
    causal: whether tokens attend to earlier tokens only.
    prefix_mask: whether prefixes of a causal stack may be bidirectional (prefix
      LM). "relative" positions then have buckets for later keys too.
    has_cross_attention: whether blocks attend to an encoder's output.
    attention_window: number of newest positions visible to each token; 0 for
      all (sliding-window attention; Beltagy et al. 2020, arXiv:2004.05150).
    dropout: dropout rate of embeddings and residual branches.
    attention_dropout: dropout rate of attention weights.
    use_bias: whether projections have biases.
    initializer: initializer of kernels, one of INITIALIZERS.
    layer_execution: "scan" compiles one block and loops over it; "unrolled"
      compiles every block; "auto" chooses. Parameters are stacked, [L, ...], in
      each case, so checkpoints do not depend on it. "separate" has parameters
      for each block, layers_0, layers_1, ...; for decoding only.
    remat: whether the backward pass recomputes the activations of each block
      instead of storing them.
    dtype: dtype of the matmuls; softmax and norms are computed in float32.
    param_dtype: dtype of the parameters.
  """

  width: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  feed_forward: str
  feed_forward_width: int
  norm: str
  positions: str
  max_context: int
  dropout: float
  use_bias: bool
  remat: bool
  experts: Experts | None = None
  attention_dropout: float = 0.0
  norm_position: str = "pre"
  qk_norm: str = "none"
  norm_epsilon: float = 0.0
  rope_base: float = BASE
  causal: bool = True
  prefix_mask: bool = False
  has_cross_attention: bool = False
  attention_window: int = 0
  initializer: str = "normal"
  layer_execution: str = "auto"
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Create the layers."""
    # Unknown names would otherwise select the default without an error.
    check_choice("positions", self.positions, POSITIONS)
    check_choice("qk_norm", self.qk_norm, QK_NORMS)
    check_choice("norm_position", self.norm_position, NORM_POSITIONS)
    check_choice("feed_forward", self.feed_forward, FEED_FORWARDS)
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    # Constructors instead of modules: Block creates its layers inside the scan
    # over layers, where each has a name and parameters [L, ...].
    norm = normalization(self.norm, self.norm_epsilon, **dtypes)
    if self.positions == "learned":
      self.position_embedding = LearnedPositions(
        self.max_context, self.width, param_dtype=self.param_dtype
      )
    if self.positions == "relative":
      # One table for all layers, as in T5.
      only_earlier = self.causal and not self.prefix_mask
      self.relative_bias = RelativeBias(
        self.num_heads, only_earlier, param_dtype=self.param_dtype
      )
    self.drop = Dropout(self.dropout)
    make_block = functools.partial(
      Block,
      attention=self.self_attention(),
      cross_attention=self.cross_attention(),
      feed_forward=self.feed_forward_layer(),
      norm=norm,
      norm_position=self.norm_position,
      dropout=self.dropout,
    )
    layer_execution = choose_layer_execution(
      self.layer_execution, self.num_layers
    )
    blocks = make_layers(
      make_block, self.num_layers, layer_execution, self.remat
    )
    # Flax names parameters by attribute: "blocks" are stacked, "layers_0", ...
    # are separate.
    if layer_execution == "separate":
      self.layers = blocks
    else:
      self.blocks = blocks
    if self.norm_position == "pre":
      self.final_norm = norm()

  def layer_settings(self) -> dict:
    """Return the attributes that all layers of a block share."""
    return dict(
      use_bias=self.use_bias,
      # 2L branches add to the residual stream. Dividing their scale by √(2L)
      # keeps its variance at initialization independent of the depth (GPT-2;
      # Radford et al. 2019, section 2.3).
      out_scale=0.02 / (2 * self.num_layers) ** 0.5,
      initializer=self.initializer,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )

  def attention_settings(self) -> dict:
    """Return the attributes that self-attention and cross-attention share."""
    qk_norm = None
    if self.qk_norm != "none":
      qk_norm = normalization(
        self.qk_norm,
        self.norm_epsilon,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
      )
    return self.layer_settings() | dict(
      num_heads=self.num_heads,
      qk_norm=qk_norm,
      weight_dropout=self.attention_dropout,
    )

  def self_attention(self) -> functools.partial:
    """Return the constructor of a block's self-attention."""
    return functools.partial(
      SelfAttention,
      num_kv_heads=self.num_kv_heads,
      causal=self.causal,
      rotary=self.positions == "rotary",
      rope_base=self.rope_base,
      window=self.attention_window,
      **self.attention_settings(),
    )

  def cross_attention(self) -> functools.partial | None:
    """Return the constructor of a block's cross-attention, or None."""
    if not self.has_cross_attention:
      return None
    return functools.partial(CrossAttention, **self.attention_settings())

  def feed_forward_layer(self) -> functools.partial:
    """Return the constructor of a block's feed-forward layer."""
    settings = self.layer_settings() | dict(
      kind=self.feed_forward, width=self.feed_forward_width
    )
    if self.experts is None:
      return functools.partial(FeedForward, **settings)
    return functools.partial(MixtureOfExperts, experts=self.experts, **settings)

  def distance_bias(self) -> DistanceBias | None:
    """Return the function from distances to score biases, or None."""
    if self.positions == "relative":
      return self.relative_bias
    if self.positions == "alibi":
      return functools.partial(linear_biases, num_heads=self.num_heads)
    return None

  def __call__(
    self,
    x_BTD: Array,
    attention_context: AttentionContext,
    caches: Sequence[PyTree] | None = None,
    memories: Sequence[PyTree] | None = None,
    memory_range: AttentionRange | None = None,
  ) -> tuple[Array, list[PyTree]]:
    """Transform embeddings into hidden vectors.

    Args:
      x_BTD: token embeddings.
      attention_context: positions, mask and cache slots of all layers.
      caches: for each layer, the cache of its self-attention, such as keys and
        values [B, G, C, K]; None for none.
      memories: for each layer, the keys and values [B, G, S, K] that its
        cross-attention attends to; None without cross-attention.
      memory_range: visible positions of the memories; None for all.

    Returns:
      hidden_BTD, and for each layer the updated cache or None.
    """
    if self.positions == "learned":
      x_BTD += self.position_embedding(attention_context.positions_BT).astype(
        x_BTD.dtype
      )
    elif self.positions == "sinusoidal":
      # Vaswani et al. 2017, section 3.4: embeddings, initialized at 0.02, come
      # closer to the scale of the sinusoids.
      x_BTD *= self.width**0.5
      x_BTD += sinusoids(attention_context.positions_BT, self.width).astype(
        x_BTD.dtype
      )
    is_separate = self.layer_execution == "separate"
    no_layers = [None] * self.num_layers
    layer_inputs = zip(caches or no_layers, memories or no_layers, strict=True)
    x_BTD, new_caches = apply_layers(
      self.layers if is_separate else self.blocks,
      self.drop(x_BTD),
      list(layer_inputs),
      attention_context,
      memory_range,
    )
    if self.norm_position == "pre":
      x_BTD = self.final_norm(x_BTD)
    return x_BTD, new_caches

  def encode_bidirectional(
    self, x_BTD: Array, resets_BT: Array | None, mask_BT: Array | None
  ) -> Array:
    """Transform the embeddings of whole texts, [B, T, D] to [B, T, D].

    Args:
      x_BTD: token embeddings.
      resets_BT: true at the first token of each document; no token attends to
        another document.
      mask_BT: false on padding, which no token attends to.
    """
    attention_context = bidirectional_context(
      x_BTD.shape[:2], resets_BT, mask_BT, self.distance_bias()
    )
    return self(x_BTD, attention_context)[0]

  @nn.nowrap
  def resolve_auto(self) -> dict[str, str]:
    """Return what "auto" resolves to, by config key."""
    execution = choose_layer_execution(self.layer_execution, self.num_layers)
    return dict(scan_layers=execution)

  @nn.nowrap
  def block_multiply_adds(self, seq_len: int) -> int:
    """Return the matmul multiply–adds of one block and token; FLOPs are twice.

    Attention counts only visible keys, on average over the positions of a
    sequence: about T/2 of a causal mask.
    """
    key_value_width = self.width * self.num_kv_heads // self.num_heads
    projections = 2 * self.width * (self.width + key_value_width)
    num_kernels = 3 if FEED_FORWARDS[self.feed_forward].gated else 2
    feed_forward = num_kernels * self.width * self.feed_forward_width
    if self.experts is not None:
      feed_forward *= self.experts.per_token
      feed_forward += self.width * self.experts.number  # the router
    visible = seq_len
    if self.causal:
      # Of W visible positions, the first W tokens see W/2 on average.
      window = min(self.attention_window or seq_len, seq_len)
      visible = window - window**2 / (2 * seq_len)
    attention = round(2 * self.width * visible)  # q·k and a·v
    return projections + feed_forward + attention


def transformer_settings(config: ConfigDict) -> dict:
  """Return the attributes of a TransformerStack that a config sets.

  Raises:
    UsageError: if sizes are not divisible as the positions or heads need.
  """
  model, data = config.model, config.data
  settings = block_settings(model)
  num_kv_heads = model.num_kv_heads or model.num_heads
  max_context = model.max_context or data.seq_len
  if num_kv_heads <= 0 or model.num_heads % num_kv_heads:
    raise UsageError(
      f"model.num_kv_heads={num_kv_heads} must divide model.num_heads="
      f"{model.num_heads}."
    )
  # Rotary positions rotate pairs of features.
  if model.positions == "rotary" and model.width // model.num_heads % 2:
    raise UsageError(
      f"model.width / model.num_heads = {model.width // model.num_heads} must "
      "be even for model.positions=rotary."
    )
  # Positions beyond the table would all read its last row.
  if model.positions == "learned" and max_context < data.seq_len:
    raise UsageError(
      f"data.seq_len={data.seq_len} must not exceed "
      f"model.max_context={max_context} with model.positions=learned."
    )
  if model.positions == "sinusoidal" and model.width % 2:
    raise UsageError(
      f"model.width={model.width} must be even for model.positions=sinusoidal."
    )
  return settings | dict(
    num_kv_heads=num_kv_heads,
    positions=model.positions,
    rope_base=model.rope_base,
    max_context=max_context,
    attention_dropout=model.attention_dropout,
  )


def block_settings(model: ConfigDict) -> dict:
  """Return the attributes of a TransformerStack except those of positions.

  Transformer-XL has only these.

  Raises:
    UsageError: if the number of heads or experts is invalid.
  """
  if model.num_heads <= 0 or model.width % model.num_heads:
    raise UsageError(
      f"model.num_heads={model.num_heads} must divide model.width="
      f"{model.width}."
    )
  experts = Experts(
    number=model.num_experts,
    per_token=model.experts_per_token,
    capacity_factor=model.capacity_factor,
    balance_loss=model.balance_loss,
    router_z_loss=model.router_z_loss,
  )
  if experts.number and not 1 <= experts.per_token <= experts.number:
    raise UsageError(
      f"model.experts_per_token={experts.per_token} must be between 1 and "
      f"model.num_experts={experts.number}."
    )
  return dict(
    width=model.width,
    num_layers=model.num_layers,
    num_heads=model.num_heads,
    feed_forward=model.feed_forward,
    feed_forward_width=model.feed_forward_width or 4 * model.width,
    experts=experts if experts.number else None,
    norm=model.norm,
    norm_position=model.norm_position,
    qk_norm=model.qk_norm,
    norm_epsilon=model.norm_epsilon,
    dropout=model.dropout,
    use_bias=model.use_bias,
    initializer=model.initializer,
    remat=model.remat,
    layer_execution=model.scan_layers,
    dtype=jnp.dtype(model.dtype),
    param_dtype=jnp.dtype(model.param_dtype),
  )
