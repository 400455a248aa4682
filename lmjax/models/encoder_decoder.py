# SPDX-License-Identifier: Apache-2.0
"""The encoder–decoder Transformer: one text read while another is written."""

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
  """A source text as the decoder's layers attend to it, batch first.

  Attributes:
    keys_BGSK: one array a layer.
    values_BGSK: one array a layer.
    mask_BS: false on padding; None if there is none.
  """

  keys_BGSK: tuple[Array, ...]
  values_BGSK: tuple[Array, ...]
  mask_BS: Array | None


class EncoderDecoder(Transformer, kw_only=True):
  """A decoder that attends to what an encoder makes of a source text.

  Vaswani et al. 2017 (arXiv:1706.03762); with relative positions, RMS norms
  before the layers and no biases, T5 (Raffel et al. 2020, arXiv:1910.10683).
  Both texts have one vocabulary and one embedding table, if not said otherwise.

  Attributes:
    encoder: transformer stack that reads the source; bidirectional.
    source_vocab_size: number of tokens of sources, which then have a table of
      their own; 0 for one vocabulary.
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
    """Read source texts.

    Keys and values of all layers are made here, once a text.

    Args:
      sources_BS: int tokens.
      mask_BS: true on tokens, false on padding; None for no padding.
    """
    table = self.source_embedding if self.source_vocab_size else self.embedding
    x_BSD = self.encoder.encode_bidirectional(table(sources_BS), None, mask_BS)

    def by_layer(stacked: Parameters) -> list[Parameters]:
      kernels, biases = stacked
      if biases is None:
        biases = [None] * self.stack.num_layers
      return list(zip(kernels, biases, strict=True))

    maps = by_layer(self.memory_key()) + by_layer(self.memory_value())
    made = apply_affine(x_BSD, maps, 1, self.dtype)
    keys_BSGK, values_BSGK = (
      made[: self.stack.num_layers],
      made[self.stack.num_layers :],
    )
    if self.stack.qk_norm != "none":
      norms = zip(self.memory_key_norms, keys_BSGK, strict=True)
      keys_BSGK = [norm(key_BSGK) for norm, key_BSGK in norms]

    def heads_first(made: list[Array]) -> tuple[Array, ...]:
      return tuple(jnp.swapaxes(x_BSGK, 1, 2) for x_BSGK in made)

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
    """Read target tokens behind those of a carry.

    Args:
      tokens_BT: int tokens.
      carry: keys and values of the tokens before; None for no tokens before.
      resets_BT: true where a document begins; no token sees across.
      memory: what `encode` made of the sources.
      sources_BS: the sources themselves, in place of a memory.
      source_mask_BS: false on their padding.

    Returns:
      hidden_BTD in `dtype`, and the carry with the new tokens in it, or None
      if none was given.

    Raises:
      UsageError: if there is no source.
    """
    if memory is None:
      if sources_BS is None and self.is_initializing():
        sources_BS = tokens_BT  # parameters depend on no length
      if sources_BS is None:
        raise UsageError(
          "model.name=encoder_decoder writes one text while it reads another; "
          "choose a task that gives it both."
        )
      memory = self.encode(sources_BS, source_mask_BS)
    memories = list(zip(memory.keys_BGSK, memory.values_BGSK, strict=True))
    attention_range = cross_attention_range(memory.mask_BS, tokens_BT.shape[1])
    return self._read(
      tokens_BT,
      carry,
      resets_BT,
      memories=memories,
      attention_range=attention_range,
    )

  @nn.nowrap
  def attended(self, sown: PyTree) -> Array:
    """Return how much tokens attended to places of the source, [B, T, S].

    Args:
      sown: "intermediates" of a call: the weights of each head of each layer,
        of which the mean is taken.
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
  def flops_per_token(self, window: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token.

    Sources are taken to be as long as targets.
    """
    key_value_width = (
      self.width * self.stack.num_kv_heads // self.stack.num_heads
    )
    crossing = 2 * self.width * (self.width + key_value_width + window)
    return (
      super().flops_per_token(window)
      + 2 * self.stack.num_layers * crossing
      + 2 * self.encoder.num_layers * self.encoder.block_flops(window)
    )


def build(
  config: ConfigDict, vocab_size: int, source_vocab_size: int = 0
) -> EncoderDecoder:
  """Make the model that a config describes.

  Raises:
    UsageError: if the sizes do not fit together.
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
