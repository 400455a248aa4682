# SPDX-License-Identifier: Apache-2.0
"""The decoder-only Transformer language model."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.attention import SelfAttention, View, make_view
from lmjax.layers.dropout import Dropout
from lmjax.layers.embeddings import OutputLayer, TokenEmbedding
from lmjax.layers.feedforward import FEED_FORWARDS
from lmjax.layers.norms import NORMS
from lmjax.layers.positions import LearnedPositions, sinusoids
from lmjax.models.language_model import LanguageModel
from lmjax.ops.key_value_cache import KeyValueCache, empty_cache
from lmjax.types import Array, PyTree

POSITIONS = ("learned", "sinusoidal", "rotary")
DEPTHS = ("auto", "scan", "unrolled")
_FEW_LAYERS = 8


class Block(nn.Module):
  """Attention and feed-forward, each behind a norm and on a residual.

  Attributes:
    attention: makes the attention layer, given a name.
    feed_forward: makes the feed-forward layer, given a name.
    norm: makes a normalisation, given a name.
    dropout: share of features dropped before each residual.
  """

  attention: functools.partial
  feed_forward: functools.partial
  norm: functools.partial
  dropout: float

  @nn.compact
  def __call__(
    self, x_BTD: Array, cached: tuple[Array, Array] | None, view: View
  ) -> tuple[Array, tuple[Array, Array] | None]:
    """Transform [B, T, D]; see SelfAttention for what is returned beside."""
    attended_BTD, new = self.attention(name="attention")(
      self.norm(name="attention_norm")(x_BTD), view, cached
    )
    x_BTD += Dropout(self.dropout)(attended_BTD)
    normed_BTD = self.norm(name="feed_forward_norm")(x_BTD)
    forward_BTD = self.feed_forward(name="feed_forward")(normed_BTD)
    return x_BTD + Dropout(self.dropout)(forward_BTD), new


class Transformer(LanguageModel):
  """Pre-norm decoder (Radford et al. 2019) with its blocks stacked.

  Attributes:
    vocab_size: number of tokens V.
    width: model width D.
    num_layers: number of blocks L.
    num_heads: number of query heads H; divides `width`.
    num_kv_heads: number of key and value heads G; divides `num_heads`.
    feed_forward: "gelu" or "swiglu".
    feed_forward_width: inner width F.
    norm: "layer", "layer_no_bias" or "rms".
    positions: "learned", "sinusoidal" or "rotary".
    context: how many tokens the carry holds, and the number of learned
      positions.
    attention_window: how many of the newest positions each sees; 0 for all.
    dropout: share of features dropped on the embeddings and residuals.
    use_bias: whether projections have biases.
    tie_embeddings: whether the embedding table makes the logits too.
    depth: "scan" compiles one block and loops over it, "unrolled" compiles
      them all, "auto" chooses; parameters are stacked, [L, ...], for either.
    remat: whether the backward pass computes each block again instead of
      storing its activations.
    dtype: dtype of the matmuls; softmax and norms are computed in float32.
    param_dtype: dtype of the parameters.
  """

  vocab_size: int
  width: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  feed_forward: str
  feed_forward_width: int
  norm: str
  positions: str
  context: int
  dropout: float
  use_bias: bool
  tie_embeddings: bool
  remat: bool
  attention_window: int = 0
  depth: str = "auto"
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Create the layers."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    shared = dict(
      use_bias=self.use_bias,
      out_scale=0.02 / (2 * self.num_layers) ** 0.5,
      **dtypes,
    )
    norm = functools.partial(NORMS[self.norm], **dtypes)
    block = Block
    if self.remat:  # only a scan keeps a block from being merged with its copy
      block = nn.remat(Block, prevent_cse=self._depth() != "scan")
    self.embedding = TokenEmbedding(self.vocab_size, self.width, **dtypes)
    if self.positions == "learned":
      self.position_embedding = LearnedPositions(
        self.context, self.width, param_dtype=self.param_dtype
      )
    self.drop = Dropout(self.dropout)
    make_block = functools.partial(
      block,
      attention=functools.partial(
        SelfAttention,
        num_heads=self.num_heads,
        num_kv_heads=self.num_kv_heads,
        rotary=self.positions == "rotary",
        window=self.attention_window,
        **shared,
      ),
      feed_forward=functools.partial(
        FEED_FORWARDS[self.feed_forward],
        width=self.feed_forward_width,
        **shared,
      ),
      norm=norm,
      dropout=self.dropout,
    )
    if self._depth() == "separate":
      self.layers = [make_block() for _ in range(self.num_layers)]
    else:
      stack = nn.scan(
        block,
        variable_axes={"params": 0, "losses": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, nn.broadcast),
        length=self.num_layers,
        unroll=self.num_layers if self._depth() == "unrolled" else 1,
      )
      self.blocks = stack(**make_block.keywords)
    self.final_norm = norm()
    if not self.tie_embeddings:
      self.output = OutputLayer(
        self.vocab_size,
        self.width,
        use_bias=self.use_bias,
        param_dtype=self.param_dtype,
      )

  def __call__(
    self,
    tokens_BT: Array,
    carry: KeyValueCache | None = None,
    resets_BT: Array | None = None,
  ) -> tuple[Array, KeyValueCache | None]:
    """Read tokens behind those of a carry.

    Args:
      tokens_BT: int tokens.
      carry: keys and values of the tokens before; None for no tokens before.
      resets_BT: true where a document begins; no token sees across.

    Returns:
      hidden_BTD in `dtype`, and the carry with the new tokens in it, or None
      if none was given.
    """
    view = make_view(tokens_BT, carry, resets_BT, self.attention_window)
    x_BTD = self.embedding(tokens_BT)
    if self.positions == "learned":
      x_BTD += self.position_embedding(view.positions_BT).astype(x_BTD.dtype)
    elif self.positions == "sinusoidal":
      x_BTD *= self.width**0.5  # as loud as the waves (Vaswani et al., 3.4)
      x_BTD += sinusoids(view.positions_BT, self.width).astype(x_BTD.dtype)
    x_BTD = self.drop(x_BTD)
    x_BTD, cached = self._apply_blocks(x_BTD, carry, view)
    hidden_BTD = self.final_norm(x_BTD)
    if self.is_initializing():
      self.unembedding()
    if carry is None:
      return hidden_BTD, None
    length_B = carry.length_B + tokens_BT.shape[1]
    return hidden_BTD, KeyValueCache(*cached, length_B, view.starts_BT[:, -1])

  def _apply_blocks(
    self, x_BTD: Array, carry: KeyValueCache | None, view: View
  ) -> tuple[Array, tuple | None]:
    """Apply all layers; return also the cached keys and values of each."""
    cached = carry and (carry.keys_BGCK, carry.values_BGCK)
    if self._depth() != "separate":
      stacked = cached and tuple(jnp.stack(leaves) for leaves in cached)
      x_BTD, stacked = self.blocks(x_BTD, stacked, view)
      return x_BTD, cached and tuple(tuple(leaf) for leaf in stacked)
    each = zip(*cached, strict=True) if cached else [None] * self.num_layers
    written = []
    for layer, pair in zip(self.layers, each, strict=True):
      x_BTD, pair = layer(x_BTD, pair, view)
      written.append(pair)
    return x_BTD, cached and tuple(zip(*written, strict=True))

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> KeyValueCache:
    """Make an empty cache for the last `capacity` tokens."""
    return empty_cache(
      batch_size,
      self.num_layers,
      capacity,
      self.num_kv_heads,
      self.width // self.num_heads,
      self.dtype,
    )

  @nn.nowrap
  def _depth(self) -> str:
    """Unroll a few layers on a CPU, where it is faster.

    "separate", layers with parameters of their own, is for decoding alone.
    """
    if self.depth != "auto":
      return self.depth
    few = self.num_layers <= _FEW_LAYERS and jax.default_backend() == "cpu"
    return "unrolled" if few else "scan"

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["Transformer", PyTree]:
    """Give each layer arrays of its own, which a loop need not slice."""
    model, variables = super().for_decoding(variables, batch_size)
    params = dict(variables["params"])
    blocks = params.pop("blocks")
    for index in range(self.num_layers):
      layer = jax.tree.map(lambda leaf, i=index: leaf[i], blocks)
      params[f"layers_{index}"] = layer
    return model.clone(depth="separate"), {**variables, "params": params}

  @nn.nowrap
  def choices(self, with_resets: bool) -> dict[str, str]:
    """Name what "auto" stands for here."""
    del with_resets
    return dict(depth=self._depth())

  @nn.nowrap
  def flops_per_token(self, window: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token.

    Attention counts the positions that the mask shows, window / 2 on average
    if all before are seen.
    """
    key_value_width = self.width * self.num_kv_heads // self.num_heads
    projections = 2 * self.width * (self.width + key_value_width)
    num_kernels = 3 if self.feed_forward == "swiglu" else 2
    feed_forward = num_kernels * self.width * self.feed_forward_width
    reach = min(self.attention_window or window, window)
    shown = reach - reach**2 / (2 * window)
    attention = round(2 * self.width * shown)  # q·k and a·v
    block = projections + feed_forward + attention
    return 2 * (self.num_layers * block + self.width * self.vocab_size)


def build(config: ConfigDict, vocab_size: int) -> Transformer:
  """Make the model that a config describes.

  Raises:
    UsageError: if the sizes do not fit together.
  """
  model, data = config.model, config.data
  num_kv_heads = model.num_kv_heads or model.num_heads
  context = model.context or data.window
  for key, choices in dict(
    norm=NORMS,
    feed_forward=FEED_FORWARDS,
    positions=POSITIONS,
    depth=DEPTHS,
  ).items():
    if model[key] not in choices:
      raise UsageError(
        f"model.{key}={model[key]} is not known; choose one of "
        f"{', '.join(choices)}."
      )
  if model.num_heads <= 0 or model.width % model.num_heads:
    raise UsageError(
      f"model.num_heads={model.num_heads} must divide model.width="
      f"{model.width}."
    )
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
  if model.positions == "learned" and context < data.window:
    raise UsageError(
      f"data.window={data.window} must not exceed model.context={context} "
      "with model.positions=learned."
    )
  if model.positions == "sinusoidal" and model.width % 2:
    raise UsageError(
      f"model.width={model.width} must be even for model.positions=sinusoidal."
    )
  if model.positions != "rotary" and data.order == "stateful":
    raise UsageError(
      f"model.positions={model.positions} counts from the start of a text, and "
      "data.order=stateful goes on without end; choose rotary."
    )
  return Transformer(
    vocab_size=vocab_size,
    width=model.width,
    num_layers=model.num_layers,
    num_heads=model.num_heads,
    num_kv_heads=num_kv_heads,
    feed_forward=model.feed_forward,
    feed_forward_width=model.feed_forward_width or 4 * model.width,
    norm=model.norm,
    positions=model.positions,
    context=context,
    attention_window=model.attention_window,
    dropout=model.dropout,
    use_bias=model.use_bias,
    tie_embeddings=model.tie_embeddings,
    remat=model.remat,
    depth=model.depth,
    dtype=jnp.dtype(model.dtype),
    param_dtype=jnp.dtype(model.param_dtype),
  )
