# SPDX-License-Identifier: Apache-2.0
"""Transformer-XL: segments that remember the hidden states of those before."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.positions import sinusoids
from lmjax.layers.relative_attention import RelativeAttention, SegmentContext
from lmjax.models.language_model import LanguageModel
from lmjax.models.transformer import Transformer
from lmjax.models.transformer_stack import TransformerStack, block_settings
from lmjax.ops.attention_range import causal_range
from lmjax.ops.key_value_cache import document_starts
from lmjax.types import Array


class SegmentMemory(NamedTuple):
  """The carry of a Transformer-XL; every leaf has its batch axis first.

  Attributes:
    inputs_BMD: the newest inputs of each layer's attention.
    length_B: tokens seen since the memory was empty.
    start_B: position of the first token of the current document.
  """

  inputs_BMD: tuple[Array, ...]
  length_B: Array
  start_B: Array


class TransformerXLStack(TransformerStack, kw_only=True):
  """Transformer stack whose blocks use relative attention (Dai et al. 2019)."""

  positions: str = "none"  # relative attention encodes distances itself
  max_context: None = None  # the memory has one size for texts of any length

  def self_attention(self) -> functools.partial:
    """Return the constructor of a block's attention layer."""
    return functools.partial(RelativeAttention, **self.attention_settings())


class TransformerXL(Transformer, kw_only=True):
  """Decoder with a memory of hidden states (Dai et al. 2019).

  arXiv:1901.02860. What layer l remembers was made of what layer l - 1
  remembered then, so the top sees L memories far.

  Attributes:
    memory: how many of the newest tokens are remembered.
  """

  kinds = ("decoder", "infiller")

  memory: int

  def __call__(
    self,
    tokens_BT: Array,
    carry: SegmentMemory | None = None,
    resets_BT: Array | None = None,
  ) -> tuple[Array, SegmentMemory | None]:
    """Process tokens that follow those of a memory.

    Args:
      tokens_BT: int tokens.
      carry: the memory; None for no tokens before.
      resets_BT: true at the first token of each document; no token attends to
        another document.

    Returns:
      hidden_BTD in `dtype`, and the memory with the new tokens in it, or None
      if none was given.
    """
    batch, time = tokens_BT.shape
    if carry is None:
      seen_B = start_B = jnp.zeros(batch, jnp.int32)
      num_keys, memories = time, [None] * self.stack.num_layers
    else:
      memories, seen_B, start_B = carry
      num_keys = memories[0].shape[1] + time
    ends_B1 = seen_B[:, None] + time
    positions_BS = ends_B1 + jnp.arange(-num_keys, 0)
    rows_BT = positions_BS[:, num_keys - time :]
    starts_BT = document_starts(rows_BT, start_B, resets_BT)
    attention_range = causal_range(rows_BT, starts_BT, positions_BS)
    distances_1S = jnp.arange(num_keys)[None, ::-1]
    attention_context = SegmentContext(
      attention_range, sinusoids(distances_1S, self.width)[0]
    )
    remembered = [(memory, None) for memory in memories]
    x_BTD = self.embedding(tokens_BT)
    hidden_BTD, kept = self.stack(x_BTD, attention_context, remembered)
    if self.is_initializing():
      self.unembedding()
    if carry is None:
      return hidden_BTD, None
    return hidden_BTD, SegmentMemory(
      tuple(kept), ends_B1[:, 0], starts_BT[:, -1]
    )

  # A memory has no place for what it lost to later tokens.
  extend = LanguageModel.extend
  snapshot = LanguageModel.snapshot
  rollback = LanguageModel.rollback

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> SegmentMemory:
    """Make an empty memory, for `capacity` tokens if those are fewer."""
    size = min(self.memory, capacity or self.memory)
    shape = (batch_size, size, self.width)
    return SegmentMemory(
      tuple(jnp.zeros(shape, self.dtype) for _ in range(self.stack.num_layers)),
      length_B=jnp.zeros(batch_size, jnp.int32),
      start_B=jnp.zeros(batch_size, jnp.int32),
    )

  @nn.nowrap
  def flops_per_token(self, window: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token.

    The memory is taken to be full; the vectors of distances, which all rows of
    a batch share, are left out.
    """
    distances = self.width * (window / 2 + self.memory)
    memory = 2 * self.width * self.memory + distances
    return super().flops_per_token(window) + 2 * self.stack.num_layers * round(
      memory
    )


def build(config: ConfigDict, vocab_size: int) -> TransformerXL:
  """Make the model that a config describes.

  Raises:
    UsageError: if the sizes do not fit together.
  """
  model = config.model
  if model.width % 2:
    raise UsageError(
      f"model.width={model.width} must be even for the sinusoids of distances."
    )
  return TransformerXL(
    vocab_size=vocab_size,
    tie_embeddings=model.tie_embeddings,
    stack=TransformerXLStack(
      num_kv_heads=model.num_heads, **block_settings(model)
    ),
    memory=model.memory_length,
  )
