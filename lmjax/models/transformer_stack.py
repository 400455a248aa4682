# SPDX-License-Identifier: Apache-2.0
"""What Transformers have between embeddings and logits."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.attention import CrossAttention, SelfAttention
from lmjax.layers.attention_context import (
  AttentionContext,
  DistanceBias,
  bidirectional_context,
)
from lmjax.layers.dropout import Dropout
from lmjax.layers.feedforward import FEED_FORWARDS, FeedForward
from lmjax.layers.initializers import INITIALIZERS
from lmjax.layers.layer_stack import (
  LAYER_EXECUTIONS,
  apply_layers,
  choose_layer_execution,
  make_layers,
)
from lmjax.layers.moe import Experts, MixtureOfExperts
from lmjax.layers.norms import NORMS, normalization
from lmjax.layers.position_bias import RelativeBias, linear_biases
from lmjax.layers.positions import LearnedPositions, sinusoids
from lmjax.layers.transformer_block import NORM_POSITIONS, Block
from lmjax.models.choices import check_choice
from lmjax.ops.attention_range import AttentionRange
from lmjax.ops.rotary import BASE
from lmjax.types import Array, PyTree

# Absolute positions are counted from the start of a text, which limits its
# length; the other kinds depend on distances only and have no limit.
ABSOLUTE_POSITIONS = ("learned", "sinusoidal")
POSITIONS = (*ABSOLUTE_POSITIONS, "rotary", "relative", "alibi", "none")
QK_NORMS = ("none", "layer", "layer_no_bias", "rms")


class TransformerStack(nn.Module, kw_only=True):
  """Positions, blocks and a last norm.

  Attributes:
    width: model width D.
    num_layers: number of blocks L.
    num_heads: number of query heads H; divides `width`.
    num_kv_heads: number of key and value heads G; divides `num_heads`.
    feed_forward: one of FEED_FORWARDS.
    feed_forward_width: inner width F, of each expert if there are any.
    experts: of a mixture in place of each feed-forward layer; None for none.
    norm: one of NORMS.
    norm_position: "pre" or "post"; see Block. Behind the blocks there is
      another norm only with "pre".
    qk_norm: norm of queries and keys by head (Henry et al. 2020,
      arXiv:2010.04245; Dehghani et al. 2023, arXiv:2302.05442), or "none".
    norm_epsilon: added to variances by all norms; 0 for the default of the
      norm; see lmjax.layers.norms.normalization.
    rope_base: base of the wavelengths of "rotary" positions.
    positions: "learned" or "sinusoidal" vectors added to the embeddings,
      "rotary" angles of queries and keys, "relative" (T5) or "alibi" biases of
      scores, or "none".
    max_context: how many tokens the carry holds, and the number of learned
      positions.
    causal: whether tokens see those before them alone.
    prefix_mask: whether tokens of a causal trunk may be told to see later ones
      too, which "relative" positions must then tell apart.
    has_cross_attention: whether blocks attend to a memory too.
    attention_window: how many of the newest positions each sees; 0 for all.
    dropout: dropout rate of the embeddings and residuals.
    attention_dropout: dropout rate of the attention weights.
    use_bias: whether projections have biases.
    initializer: how kernels are drawn, one of INITIALIZERS. "normal" makes
      those that write to the residual smaller with depth (Radford et al.).
    layer_execution: "scan" compiles one block and loops over it; "unrolled"
      compiles every block; "auto" chooses. Parameters are stacked, [L, ...],
      in each case.
    remat: whether the backward pass computes each block again instead of
      storing its activations.
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
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    norm = normalization(self.norm, self.norm_epsilon, **dtypes)
    if self.positions == "learned":
      self.position_embedding = LearnedPositions(
        self.max_context, self.width, param_dtype=self.param_dtype
      )
    if self.positions == "relative":
      one_sided = self.causal and not self.prefix_mask
      self.relative_bias = RelativeBias(
        self.num_heads, one_sided, param_dtype=self.param_dtype
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
    if layer_execution == "separate":
      self.layers = blocks
    else:
      self.blocks = blocks
    if self.norm_position == "pre":
      self.final_norm = norm()

  def layer_settings(self) -> dict:
    """Name what all layers of a block have in common."""
    return dict(
      use_bias=self.use_bias,
      out_scale=0.02 / (2 * self.num_layers) ** 0.5,
      initializer=self.initializer,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )

  def attention_settings(self) -> dict:
    """Name what all kinds of attention have in common."""
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
    """Return what makes the attention of a block."""
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
    """Return what makes the attention of a block to a memory, if it has any."""
    if not self.has_cross_attention:
      return None
    return functools.partial(CrossAttention, **self.attention_settings())

  def feed_forward_layer(self) -> functools.partial:
    """Return what makes the feed-forward layer of a block."""
    settings = self.layer_settings() | dict(
      kind=self.feed_forward, width=self.feed_forward_width
    )
    if self.experts is None:
      return functools.partial(FeedForward, **settings)
    return functools.partial(MixtureOfExperts, experts=self.experts, **settings)

  def distance_bias(self) -> DistanceBias | None:
    """Return what makes biases of distances, if these positions have any."""
    if self.positions == "relative":
      return self.relative_bias
    if self.positions == "alibi":
      return functools.partial(linear_biases, num_heads=self.num_heads)
    return None

  def __call__(
    self,
    x_BTD: Array,
    attention_context: AttentionContext,
    remembered: Sequence[PyTree],
    attention_range: AttentionRange | None = None,
  ) -> tuple[Array, list[PyTree]]:
    """Turn embeddings into hidden vectors.

    Args:
      x_BTD: embeddings.
      attention_context: what every layer may look at.
      remembered: for each layer, what its attention keeps of the tokens before
        and its memory; see Block.
      attention_range: what is seen of memories.

    Returns:
      hidden_BTD, and what each layer keeps from now on.
    """
    if self.positions == "learned":
      x_BTD += self.position_embedding(attention_context.positions_BT).astype(
        x_BTD.dtype
      )
    elif self.positions == "sinusoidal":
      x_BTD *= self.width**0.5  # Vaswani et al., section 3.4
      x_BTD += sinusoids(attention_context.positions_BT, self.width).astype(
        x_BTD.dtype
      )
    separate = self.layer_execution == "separate"
    x_BTD, kept = apply_layers(
      self.layers if separate else self.blocks,
      self.drop(x_BTD),
      remembered,
      attention_context,
      attention_range,
    )
    if self.norm_position == "pre":
      x_BTD = self.final_norm(x_BTD)
    return x_BTD, kept

  def encode_bidirectional(
    self, x_BTD: Array, resets_BT: Array | None, mask_BT: Array | None
  ) -> Array:
    """Turn embeddings of whole texts into hidden vectors, [B, T, D].

    Args:
      x_BTD: embeddings.
      resets_BT: true where a document begins; no token sees across.
      mask_BT: false on padding, which no token attends to.
    """
    shape = x_BTD.shape[:2]
    attention_context = bidirectional_context(
      shape, resets_BT, mask_BT, self.distance_bias()
    )
    nothing = [(None, None)] * self.num_layers
    return self(x_BTD, attention_context, nothing)[0]

  @nn.nowrap
  def choices(self) -> dict[str, str]:
    """Return what "auto" resolves to, by config key."""
    execution = choose_layer_execution(self.layer_execution, self.num_layers)
    return dict(scan_layers=execution)

  @nn.nowrap
  def block_flops(self, window: int) -> int:
    """Count multiply–adds of the matmuls of one block and token.

    Attention counts the positions that the mask shows, window / 2 on average
    if all before are seen.
    """
    key_value_width = self.width * self.num_kv_heads // self.num_heads
    projections = 2 * self.width * (self.width + key_value_width)
    num_kernels = 3 if FEED_FORWARDS[self.feed_forward].gated else 2
    feed_forward = num_kernels * self.width * self.feed_forward_width
    if self.experts is not None:
      feed_forward *= self.experts.per_token
      feed_forward += self.width * self.experts.number
    reach = min(self.attention_window or window, window)
    shown = reach - reach**2 / (2 * window) if self.causal else window
    attention = round(2 * self.width * shown)  # q·k and a·v
    return projections + feed_forward + attention


def transformer_settings(config: ConfigDict) -> dict:
  """Turn a config into the attributes of a trunk.

  Raises:
    UsageError: if the sizes do not fit together.
  """
  model, data = config.model, config.data
  settings = block_settings(model)
  num_kv_heads = model.num_kv_heads or model.num_heads
  max_context = model.max_context or data.seq_len
  check_choice(model, "positions", POSITIONS)
  if num_kv_heads <= 0 or model.num_heads % num_kv_heads:
    raise UsageError(
      f"model.num_kv_heads={num_kv_heads} must divide model.num_heads="
      f"{model.num_heads}."
    )
  if model.positions == "rotary" and model.width // model.num_heads % 2:
    raise UsageError(
      f"model.width / model.num_heads = {model.width // model.num_heads} must "
      "be even for model.positions=rotary."
    )
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
  """Turn a model's config into the attributes that say nothing of positions.

  Raises:
    UsageError: if the sizes do not fit together.
  """
  check_choice(model, "norm", NORMS)
  check_choice(model, "norm_position", NORM_POSITIONS)
  check_choice(model, "qk_norm", QK_NORMS)
  check_choice(model, "feed_forward", FEED_FORWARDS)
  check_choice(model, "initializer", INITIALIZERS)
  check_choice(model, "scan_layers", LAYER_EXECUTIONS)
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
