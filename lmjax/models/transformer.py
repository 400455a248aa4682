# SPDX-License-Identifier: Apache-2.0
"""The decoder-only Transformer language model.

To read all of it: this file (embedding, stack, output layer), language_model.py
(the interface of all language models), transformer_stack.py (positions, blocks,
final norm), and in lmjax/layers transformer_block.py (the residual block),
attention.py (projections, cache, scores) and attention_context.py (positions,
mask and cache slots, computed once for all layers).
"""

from collections.abc import Sequence

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
from lmjax.ops.attention_range import AttentionRange
from lmjax.ops.key_value_cache import KeyValueCache, empty_cache
from lmjax.types import Array, PyTree


class Transformer(LanguageModel, kw_only=True):
  """Decoder-only Transformer (Vaswani et al. 2017, arXiv:1706.03762).

  Token embedding, transformer stack, output layer; pre-norm by default, as in
  GPT-2 (Radford et al. 2019). The carry is the key–value cache.

  >>> carry = model.initial_carry(batch_size=2, capacity=16)
  >>> hidden_BTD, carry = model.apply(variables, tokens_BT, carry)
  >>> logits_BTV = model.apply(variables, hidden_BTD, method="logits")

  Attributes:
    vocab_size: vocabulary size V.
    stack: positions, blocks and final norm.
    tie_embeddings: whether the output layer uses the embedding table.
    int8_cache: whether the cache stores keys and values as int8.
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
      bidirectional_BT: true on prefix tokens. The tokens of one contiguous
        prefix attend to each other in both directions (prefix LM; Raffel et al.
        2020, arXiv:1910.10683). A prefix must be processed in one call.

    Returns:
      hidden_BTD in `dtype`, and the carry with the new tokens in it, or None
      if none was given.
    """
    return self._forward(tokens_BT, carry, resets_BT, bidirectional_BT)

  def _forward(
    self,
    tokens_BT: Array,
    carry: KeyValueCache | None,
    resets_BT: Array | None,
    bidirectional_BT: Array | None = None,
    memories: Sequence[PyTree] | None = None,
    memory_range: AttentionRange | None = None,
  ) -> tuple[Array, KeyValueCache | None]:
    """Run the stack; `memories` are an encoder's keys and values by layer."""
    attention_context = causal_context(
      tokens_BT.shape,
      carry,
      resets_BT,
      self.stack.attention_window,
      bidirectional_BT,
      self.stack.distance_bias(),
    )
    caches = None
    if carry is not None:
      caches = list(zip(carry.keys_BGCK, carry.values_BGCK, strict=True))
    hidden_BTD, new_caches = self.stack(
      self.embedding(tokens_BT),
      attention_context,
      caches,
      memories,
      memory_range,
    )
    if self.is_initializing():
      # Flax creates parameters on first use, and hidden vectors are returned
      # before the output layer is used.
      self.unembedding()
    if carry is None:
      return hidden_BTD, None
    keys_BGCK, values_BGCK = zip(*new_caches, strict=True)
    # Each row counts its own tokens: rows may be at different positions.
    # The next token continues the document of the last one unless it is reset.
    length_B = carry.length_B + tokens_BT.shape[1]
    start_B = attention_context.starts_BT[:, -1]
    return hidden_BTD, KeyValueCache(keys_BGCK, values_BGCK, length_B, start_B)

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> KeyValueCache:
    """Return an empty cache of the last `capacity` tokens."""
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
    """Process all tokens in one call; see LanguageModel.extend."""
    hidden_BTD, new_carry = self(tokens_BT, carry, **options)
    numbers_T1 = jnp.arange(1, tokens_BT.shape[1] + 1)[:, None]
    return hidden_BTD, new_carry, carry.length_B[None] + numbers_T1

  @nn.nowrap
  def snapshot(self, carry: KeyValueCache) -> Array:
    """Return the number of tokens processed by each row."""
    return carry.length_B

  @nn.nowrap
  def rollback(self, carry: KeyValueCache, snapshot: Array) -> KeyValueCache:
    """Restore the cache as it was after fewer tokens."""
    # The ring buffer derives the position of a slot from the length, so a
    # shorter length hides later tokens without erasing them. This holds as long
    # as they have not overwritten earlier ones.
    return carry._replace(length_B=snapshot)

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["Transformer", PyTree]:
    """Unstack the parameters of the layers, [L, ...], into L subtrees.

    The decoding loop would otherwise slice, and so copy, them at each step.
    """
    model, variables = super().for_decoding(variables, batch_size)
    variables = separate(variables, self.stack.num_layers)
    stack = self.stack.clone(layer_execution="separate")
    return model.clone(stack=stack), variables

  @nn.nowrap
  def resolve_auto(self, with_resets: bool) -> dict[str, str]:
    """Return what "auto" resolves to, by config key."""
    del with_resets
    return self.stack.resolve_auto()

  @nn.nowrap
  def flops_per_token(self, seq_len: int) -> int:
    """Return the matmul FLOPs per token of the forward pass."""
    blocks = self.stack.num_layers * self.stack.block_multiply_adds(seq_len)
    return 2 * (blocks + self.stack.width * self.vocab_size)


def build(
  config: ConfigDict, vocab_size: int, prefix_mask: bool = False
) -> Transformer:
  """Build the model of a config.

  Args:
    config: a config with model.name=transformer.
    vocab_size: vocabulary size V.
    prefix_mask: whether prefixes may be bidirectional (prefix LM).

  Raises:
    UsageError: if sizes are not divisible as the positions or heads need, or
      the positions limit the length of a stream.
  """
  model = config.model
  settings = transformer_settings(config)
  if model.positions in ABSOLUTE_POSITIONS and config.data.order == "stateful":
    unlimited = [name for name in POSITIONS if name not in ABSOLUTE_POSITIONS]
    raise UsageError(
      f"model.positions={model.positions} has a last position, and streams of "
      f"data.order=stateful do not end; choose one of {', '.join(unlimited)}."
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
