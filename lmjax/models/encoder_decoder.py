# SPDX-License-Identifier: Apache-2.0
"""The encoder–decoder Transformer for sequence-to-sequence tasks."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.attention_context import cross_attention_range
from lmjax.layers.dense import Affine, Parameters, apply_affine
from lmjax.layers.embeddings import TokenEmbedding
from lmjax.models.transformer import Transformer
from lmjax.models.transformer_stack import (
  TransformerStack,
  transformer_settings,
)
from lmjax.ops.key_value_cache import KeyValueCache
from lmjax.tree import named_leaves
from lmjax.types import Array, PyTree


class Memory(NamedTuple):
  """The encoder's output, projected for cross-attention; batch axis first.

  Attributes:
    keys_BGSK: cross-attention keys, one array per decoder layer.
    values_BGSK: cross-attention values, one array per decoder layer.
    mask_BS: false on padding; None for no padding.
  """

  keys_BGSK: tuple[Array, ...]
  values_BGSK: tuple[Array, ...]
  mask_BS: Array | None


class EncoderDecoder(Transformer, kw_only=True):
  """Encoder–decoder Transformer (Vaswani et al. 2017, arXiv:1706.03762).

  With relative positions, RMS norms before the layers and no biases it is T5
  (Raffel et al. 2020, arXiv:1910.10683). Source and target share a vocabulary
  and an embedding table unless `source_vocab_size` is set.

  >>> memory = model.apply(variables, sources_BS, mask_BS, method="encode")
  >>> hidden_BTD, carry = model.apply(
  ...     variables, tokens_BT, carry, memory=memory)

  Attributes:
    encoder: bidirectional transformer stack over the source.
    source_vocab_size: vocabulary size of sources with an embedding table of
      their own; 0 for a shared vocabulary.
  """

  kinds = ("encoder_decoder",)

  encoder: TransformerStack
  source_vocab_size: int = 0

  def setup(self):
    """Create the layers."""
    super().setup()
    if self.source_vocab_size:
      self.source_embedding = TokenEmbedding(
        self.source_vocab_size,
        self.width,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
      )
    # The cross-attention projections of all decoder layers, stacked [L, ...].
    # They are here and not in the blocks so that `encode` computes keys and
    # values once per source, not at every decoding step.
    projection = nn.vmap(
      Affine,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      axis_size=self.stack.num_layers,
    )
    self.memory_key, self.memory_value = (
      projection(
        (self.width,),
        (self.stack.num_kv_heads, self.width // self.stack.num_heads),
        use_bias=self.stack.use_bias,
        initializer=self.stack.initializer,
        param_dtype=self.param_dtype,
      )
      for _ in range(2)
    )
    key_norm = self.stack.attention_settings()["qk_norm"]
    if key_norm is not None:
      self.memory_key_norms = [key_norm() for _ in range(self.stack.num_layers)]

  def encode(self, sources_BS: Array, mask_BS: Array | None = None) -> Memory:
    """Encode source texts.

    Args:
      sources_BS: int tokens.
      mask_BS: true on tokens, false on padding; None for no padding.

    Returns:
      The keys and values of every decoder layer's cross-attention.
    """
    table = self.source_embedding if self.source_vocab_size else self.embedding
    x_BSD = self.encoder.encode_bidirectional(table(sources_BS), None, mask_BS)

    def by_layer(stacked: Parameters) -> list[Parameters]:
      kernels, biases = stacked
      if biases is None:
        biases = [None] * self.stack.num_layers
      return list(zip(kernels, biases, strict=True))

    # One matmul for the keys and values of all layers.
    maps = by_layer(self.memory_key()) + by_layer(self.memory_value())
    projected = apply_affine(x_BSD, maps, 1, self.dtype)
    keys_BSGK = projected[: self.stack.num_layers]
    values_BSGK = projected[self.stack.num_layers :]
    if self.stack.qk_norm != "none":
      norms = zip(self.memory_key_norms, keys_BSGK, strict=True)
      keys_BSGK = [norm(key_BSGK) for norm, key_BSGK in norms]

    # [B, G, S, K], the layout of the key–value cache: decoding steps then use
    # one function for both kinds of attention.
    def heads_first(arrays: list[Array]) -> tuple[Array, ...]:
      return tuple(jnp.swapaxes(x_BSGK, 1, 2) for x_BSGK in arrays)

    return Memory(heads_first(keys_BSGK), heads_first(values_BSGK), mask_BS)

  def __call__(
    self,
    tokens_BT: Array,
    carry: KeyValueCache | None = None,
    resets_BT: Array | None = None,
    memory: Memory | None = None,
    sources_BS: Array | None = None,
    source_mask_BS: Array | None = None,
  ) -> tuple[Array, KeyValueCache | None]:
    """Process target tokens that follow those of a carry.

    Args:
      tokens_BT: int tokens.
      carry: keys and values of the tokens before; None for no tokens before.
      resets_BT: true at the first token of each document; no token attends to
        another document.
      memory: the output of `encode`.
      sources_BS: int tokens of the sources, instead of `memory`.
      source_mask_BS: false on their padding.

    Returns:
      hidden_BTD in `dtype`, and the carry with the new tokens in it, or None
      if none was given.

    Raises:
      UsageError: if neither `memory` nor `sources_BS` is given.
    """
    if memory is None:
      if sources_BS is None and self.is_initializing():
        sources_BS = tokens_BT  # no parameter depends on the source
      if sources_BS is None:
        raise UsageError(
          "model.name=encoder_decoder needs source sequences; choose a task "
          "that has them, such as seq2seq."
        )
      memory = self.encode(sources_BS, source_mask_BS)
    memories = list(zip(memory.keys_BGSK, memory.values_BGSK, strict=True))
    memory_range = cross_attention_range(memory.mask_BS, tokens_BT.shape[1])
    return self._forward(
      tokens_BT,
      carry,
      resets_BT,
      memories=memories,
      memory_range=memory_range,
    )

  @nn.nowrap
  def attended(self, sown: PyTree) -> Array:
    """Return the mean cross-attention weights of all layers and heads.

    Args:
      sown: the collection "intermediates" of a call.

    Returns:
      float32 [B, T, S].
    """
    weights_LBHTS = jnp.concatenate(
      [
        leaf.reshape(-1, *leaf.shape[-4:])
        for name, leaf in named_leaves(sown).items()
        if "cross_attention/weights" in name
      ]
    )
    return jnp.mean(weights_LBHTS, axis=(0, 2))

  @nn.nowrap
  def flops_per_token(self, seq_len: int) -> int:
    """Return the matmul FLOPs per target token of the forward pass.

    Sources are assumed to be as long as targets.
    """
    key_value_width = (
      self.width * self.stack.num_kv_heads // self.stack.num_heads
    )
    cross_attention = 2 * self.width * (self.width + key_value_width + seq_len)
    encoder_block = self.encoder.block_multiply_adds(seq_len)
    return (
      super().flops_per_token(seq_len)
      + 2 * self.stack.num_layers * cross_attention
      + 2 * self.encoder.num_layers * encoder_block
    )


def build(
  config: ConfigDict, vocab_size: int, source_vocab_size: int = 0
) -> EncoderDecoder:
  """Build the model of a config.

  Args:
    config: a config with model.name=encoder_decoder.
    vocab_size: vocabulary size V of the targets.
    source_vocab_size: vocabulary size of the sources; 0 for a shared one.

  Raises:
    UsageError: if sizes are not divisible as the positions or heads need.
  """
  model = config.model
  settings = transformer_settings(config)
  encoder = settings | dict(
    num_layers=model.num_encoder_layers or model.num_layers, causal=False
  )
  return EncoderDecoder(
    vocab_size=vocab_size,
    tie_embeddings=model.tie_embeddings,
    stack=TransformerStack(has_cross_attention=True, **settings),
    encoder=TransformerStack(**encoder),
    source_vocab_size=source_vocab_size,
  )
