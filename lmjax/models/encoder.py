# SPDX-License-Identifier: Apache-2.0
"""The encoder-only Transformer, with bidirectional attention."""

import flax.linen as nn
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.models.transformer import Transformer
from lmjax.models.transformer_stack import (
  TransformerStack,
  transformer_settings,
)
from lmjax.types import Array, PyTree


class Encoder(Transformer):
  """Bidirectional Transformer encoder, as BERT (Devlin et al. 2018).

  arXiv:1810.04805. The logits at a position are those of its own token, for
  masked language modeling. There is no carry, so it can neither generate text
  nor train on contiguous streams.
  """

  kinds = ("encoder", "text_encoder")
  backward_width = 0  # no feature comes from a backward layer alone

  def __call__(
    self,
    tokens_BT: Array,
    carry: None = None,
    resets_BT: Array | None = None,
    mask_BT: Array | None = None,
  ) -> tuple[Array, None]:
    """Encode whole texts.

    Args:
      tokens_BT: int tokens.
      carry: None.
      resets_BT: true at the first token of each document; no token attends to
        another document.
      mask_BT: true on tokens, false on padding, which no token attends to.

    Returns:
      hidden_BTD in `dtype`, and None for the carry.
    """
    assert carry is None, "an encoder has no carry"
    x_BTD = self.embedding(tokens_BT)
    hidden_BTD = self.stack.encode_bidirectional(x_BTD, resets_BT, mask_BT)
    if self.is_initializing():
      self.unembedding()  # creates the parameters of the output layer
    return hidden_BTD, None

  def embed(self, tokens_BT: Array) -> Array:
    """Return the token embeddings, [B, T, D]."""
    return self.embedding(tokens_BT)

  def contextualize(self, x_BTD: Array, mask_BT: Array) -> Array:
    """Transform token embeddings, [B, T, D] to [B, T, D]."""
    return self.stack.encode_bidirectional(x_BTD, None, mask_BT)

  @property
  def input_width(self) -> int:
    """Width of the embeddings."""
    return self.width

  @property
  def hidden_width(self) -> int:
    """Width of the hidden vectors."""
    return self.width

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> PyTree:
    """Raise an error: there is no carry.

    Raises:
      UsageError: always.
    """
    raise UsageError(
      "model.name=encoder cannot generate text; choose "
      "model.name=transformer for that."
    )


def build(config: ConfigDict, vocab_size: int) -> Encoder:
  """Build the model of a config.

  Raises:
    UsageError: if sizes are not divisible as the positions or heads need.
  """
  return Encoder(
    vocab_size=vocab_size,
    tie_embeddings=config.model.tie_embeddings,
    stack=TransformerStack(causal=False, **transformer_settings(config)),
  )
