# SPDX-License-Identifier: Apache-2.0
"""Transformer-XL: attention over cached hidden states of earlier segments.

Dimension letters:

    M  positions of the memory: cached inputs of earlier segments
"""

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
  """The carry of a Transformer-XL; batch axis first.

  Attributes:
    inputs_BMD: the newest M inputs of each layer's attention.
    length_B: number of tokens processed since the memory was empty.
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
  """Transformer-XL decoder (Dai et al. 2019, arXiv:1901.02860).

  The carry holds the newest M inputs of each layer. A layer attends to them and
  to the new tokens. They were computed from the layer below, which attended to
  M earlier inputs itself, so the top layer has a context of L · M tokens.

  Attributes:
    memory: number M of cached positions per layer.
  """

  kinds = ("decoder", "infiller")

  memory: int

  def __call__(
    self,
    tokens_BT: Array,
    carry: SegmentMemory | None = None,
    resets_BT: Array | None = None,
  ) -> tuple[Array, SegmentMemory | None]:
    """Process a segment that follows those of a carry.

    Args:
      tokens_BT: int tokens.
      carry: the memory of earlier segments; None for none.
      resets_BT: true at the first token of each document; no token attends to
        another document.

    Returns:
      hidden_BTD in `dtype`, and the memory with the new tokens in it, or None
      if none was given.
    """
    batch, time = tokens_BT.shape
    if carry is None:
      length_B = start_B = jnp.zeros(batch, jnp.int32)
      num_keys, memories = time, None
    else:
      memories, length_B, start_B = carry
      num_keys = memories[0].shape[1] + time
    ends_B1 = length_B[:, None] + time
    # Keys are the M cached inputs, then the segment. Slots of the memory that
    # are still empty have negative positions, which no query attends to.
    key_positions_BS = ends_B1 + jnp.arange(-num_keys, 0)[None]
    positions_BT = key_positions_BS[:, num_keys - time :]
    starts_BT = document_starts(positions_BT, start_B, resets_BT)
    attention_range = causal_range(positions_BT, starts_BT, key_positions_BS)
    # The sinusoids encode distances S - 1, ..., 0 of a key from the last query,
    # not positions: positions in an endless stream have no bound.
    distances_1S = jnp.arange(num_keys)[None, ::-1]
    attention_context = SegmentContext(
      attention_range, sinusoids(distances_1S, self.width)[0]
    )
    x_BTD = self.embedding(tokens_BT)
    hidden_BTD, new_memories = self.stack(x_BTD, attention_context, memories)
    if self.is_initializing():
      self.unembedding()  # creates the parameters of the output layer
    if carry is None:
      return hidden_BTD, None
    return hidden_BTD, SegmentMemory(
      tuple(new_memories), ends_B1[:, 0], starts_BT[:, -1]
    )

  # The memory shifts by the number of new tokens and drops the oldest inputs.
  # A shorter length cannot restore it, as it does in Transformer, so use the
  # defaults, which store whole carries.
  extend = LanguageModel.extend
  snapshot = LanguageModel.snapshot
  rollback = LanguageModel.rollback

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> SegmentMemory:
    """Return an empty memory of at most `capacity` tokens."""
    # A short text needs no memory beyond its own length; 0: no limit.
    size = min(self.memory, capacity or self.memory)
    shape = (batch_size, size, self.width)
    return SegmentMemory(
      tuple(jnp.zeros(shape, self.dtype) for _ in range(self.stack.num_layers)),
      length_B=jnp.zeros(batch_size, jnp.int32),
      start_B=jnp.zeros(batch_size, jnp.int32),
    )

  @nn.nowrap
  def flops_per_token(self, seq_len: int) -> int:
    """Return the matmul FLOPs per token of the forward pass with a full memory.

    The projection of distances is not counted: all rows of a batch share it.
    """
    distances = self.width * (seq_len / 2 + self.memory)
    memory = 2 * self.width * self.memory + distances
    attention = 2 * self.stack.num_layers * round(memory)
    return super().flops_per_token(seq_len) + attention


def build(config: ConfigDict, vocab_size: int) -> TransformerXL:
  """Build the model of a config.

  Raises:
    UsageError: if the width is odd, or sizes are not divisible as heads need.
  """
  model = config.model
  if model.width % 2:
    raise UsageError(
      f"model.width={model.width} must be even: half of the features are sines "
      "of distances and half are cosines."
    )
  return TransformerXL(
    vocab_size=vocab_size,
    tie_embeddings=model.tie_embeddings,
    stack=TransformerXLStack(
      num_kv_heads=model.num_heads, **block_settings(model)
    ),
    memory=model.memory_length,
  )
