# SPDX-License-Identifier: Apache-2.0
"""The decoder-only Transformer language model."""

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.attention_context import causal_context
from lmjax.layers.embeddings import OutputLayer, TokenEmbedding
from lmjax.layers.layer_stack import separate
from lmjax.models.language_model import LanguageModel
from lmjax.models.transformer_stack import (
  ABSOLUTE_POSITIONS,
  POSITIONS,
  TransformerStack,
  transformer_settings,
)
from lmjax.ops.key_value_cache import KeyValueCache, empty_cache
from lmjax.types import Array, PyTree


class Transformer(LanguageModel, kw_only=True):
  """Decoder-only Transformer: token embedding, transformer stack, output layer.

  Pre-norm by default (Radford et al. 2019).

  Attributes:
    vocab_size: vocabulary size V.
    stack: positions, blocks and final norm.
    tie_embeddings: whether the output layer uses the embedding table.
    int8_cache: whether the carry stores keys and values as int8.
  """

  kinds = ("decoder", "infiller", "prefix_decoder")

  vocab_size: int
  stack: TransformerStack
  tie_embeddings: bool
  int8_cache: bool = False

  def setup(self):
    """Create the layers."""
    # Parameters of the stack keep the paths blocks/... and final_norm/...,
    # without a prefix, beside embedding/...
    nn.share_scope(self, self.stack)
    self.embedding = TokenEmbedding(
      self.vocab_size,
      self.stack.width,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    if not self.tie_embeddings:
      self.output = OutputLayer(
        self.vocab_size,
        self.stack.width,
        use_bias=self.stack.use_bias,
        param_dtype=self.param_dtype,
      )

  @property
  def width(self) -> int:
    """Width D of the hidden vectors."""
    return self.stack.width

  @property
  def max_context(self) -> int | None:
    """Maximum number of tokens in the carry."""
    return self.stack.max_context

  @property
  def dtype(self) -> jnp.dtype:
    """Dtype of the matmuls."""
    return self.stack.dtype

  @property
  def param_dtype(self) -> jnp.dtype:
    """Dtype of the parameters."""
    return self.stack.param_dtype

  def __call__(
    self,
    tokens_BT: Array,
    carry: KeyValueCache | None = None,
    resets_BT: Array | None = None,
    bidirectional_BT: Array | None = None,
  ) -> tuple[Array, KeyValueCache | None]:
    """Process tokens that follow those of a carry.

    Args:
      tokens_BT: int tokens.
      carry: keys and values of the tokens before; None for no tokens before.
      resets_BT: true at the first token of each document; no token attends to
        another document.
      bidirectional_BT: true on prefixes, whose tokens see each other in both
        directions: of a document, each run of neighbors that are true (prefix
        language model; Raffel et al. 2020). A prefix must be read in one call.

    Returns:
      hidden_BTD in `dtype`, and the carry with the new tokens in it, or None
      if none was given.
    """
    return self._read(tokens_BT, carry, resets_BT, bidirectional_BT)

  def _read(
    self,
    tokens_BT: Array,
    carry: KeyValueCache | None,
    resets_BT: Array | None,
    bidirectional_BT: Array | None = None,
    memories: tuple = (),
    attention_range: PyTree = None,
  ) -> tuple[Array, KeyValueCache | None]:
    attention_context = causal_context(
      tokens_BT.shape,
      carry,
      resets_BT,
      self.stack.attention_window,
      bidirectional_BT,
      self.stack.distance_bias(),
    )
    nothing = [None] * self.stack.num_layers
    cached = nothing
    if carry is not None:
      cached = zip(carry.keys_BGCK, carry.values_BGCK, strict=True)
    remembered = list(zip(cached, memories or nothing, strict=True))
    x_BTD = self.embedding(tokens_BT)
    hidden_BTD, kept = self.stack(
      x_BTD, attention_context, remembered, attention_range
    )
    if self.is_initializing():
      self.unembedding()
    if carry is None:
      return hidden_BTD, None
    keys_BGCK, values_BGCK = zip(*kept, strict=True)
    length_B = carry.length_B + tokens_BT.shape[1]
    start_B = attention_context.starts_BT[:, -1]
    return hidden_BTD, KeyValueCache(keys_BGCK, values_BGCK, length_B, start_B)

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> KeyValueCache:
    """Make an empty cache for the last `capacity` tokens."""
    return empty_cache(
      batch_size,
      self.stack.num_layers,
      capacity,
      self.stack.num_kv_heads,
      self.stack.width // self.stack.num_heads,
      self.dtype,
      self.int8_cache,
    )

  def extend(
    self, tokens_BT: Array, carry: KeyValueCache, **options: PyTree
  ) -> tuple[Array, KeyValueCache, Array]:
    """Read all tokens in one call; see LanguageModel."""
    hidden_BTD, after = self(tokens_BT, carry, **options)
    numbers_T1 = jnp.arange(1, tokens_BT.shape[1] + 1)[:, None]
    return hidden_BTD, after, carry.length_B + numbers_T1

  @nn.nowrap
  def snapshot(self, carry: KeyValueCache) -> Array:
    """Return how many tokens each row has seen."""
    return carry.length_B

  @nn.nowrap
  def rollback(self, carry: KeyValueCache, snapshot: Array) -> KeyValueCache:
    """Forget all later tokens: what slots hold is known by their number."""
    return carry._replace(length_B=snapshot)

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["Transformer", PyTree]:
    """Give each layer arrays of its own, which a loop need not slice."""
    model, variables = super().for_decoding(variables, batch_size)
    variables = separate(variables, self.stack.num_layers)
    stack = self.stack.clone(layer_execution="separate")
    return model.clone(stack=stack), variables

  @nn.nowrap
  def choices(self, with_resets: bool) -> dict[str, str]:
    """Name what "auto" stands for here."""
    del with_resets
    return self.stack.choices()

  @nn.nowrap
  def flops_per_token(self, window: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""
    blocks = self.stack.num_layers * self.stack.block_flops(window)
    return 2 * (blocks + self.stack.width * self.vocab_size)


def build(
  config: ConfigDict, vocab_size: int, prefix_mask: bool = False
) -> Transformer:
  """Build the model of a config.

  Args:
    config: the keys of the model.
    vocab_size: number of tokens.
    prefix_mask: whether prompts may be bidirectional (prefix LM).

  Raises:
    UsageError: if the sizes do not fit together.
  """
  model = config.model
  settings = transformer_settings(config)
  if model.positions in ABSOLUTE_POSITIONS and config.data.order == "stateful":
    endless = [name for name in POSITIONS if name not in ABSOLUTE_POSITIONS]
    raise UsageError(
      f"model.positions={model.positions} counts from the start of a text, and "
      "data.order=stateful goes on without end; choose one of "
      f"{', '.join(endless)}."
    )
  return Transformer(
    vocab_size=vocab_size,
    stack=TransformerStack(
      attention_window=model.attention_window,
      prefix_mask=prefix_mask,
      **settings,
    ),
    tie_embeddings=model.tie_embeddings,
  )
