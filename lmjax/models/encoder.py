# SPDX-License-Identifier: Apache-2.0
"""The encoder-only Transformer, whose tokens see both sides."""

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
  """Encoder that scores the token of each place (Devlin et al. 2018).

  arXiv:1810.04805. It keeps no carry, and so can neither draw text nor learn
  from windows that go on.
  """

  kinds = ("encoder", "text_encoder")
  backward_width = 0

  def __call__(
    self,
    tokens_BT: Array,
    carry: None = None,
    resets_BT: Array | None = None,
    mask_BT: Array | None = None,
  ) -> tuple[Array, None]:
    """Read whole texts.

    Args:
      tokens_BT: int tokens.
      carry: None.
      resets_BT: true where a document begins; no token sees across.
      mask_BT: true on tokens, false on padding, which no token
        attends to.

    Returns:
      hidden_BTD in `dtype`, and None for the carry.
    """
    assert carry is None, "an encoder keeps no carry"
    x_BTD = self.embedding(tokens_BT)
    hidden_BTD = self.stack.encode_bidirectional(x_BTD, resets_BT, mask_BT)
    if self.is_initializing():
      self.unembedding()
    return hidden_BTD, None

  def embed(self, tokens_BT: Array) -> Array:
    """Look tokens up, [B, T, D]."""
    return self.embedding(tokens_BT)

  def contextualize(self, x_BTD: Array, mask_BT: Array) -> Array:
    """Read vectors of tokens, [B, T, D] to [B, T, D]."""
    return self.stack.encode_bidirectional(x_BTD, None, mask_BT)

  @property
  def input_width(self) -> int:
    """Width of what it reads."""
    return self.width

  @property
  def hidden_width(self) -> int:
    """Width of what comes out."""
    return self.width

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> PyTree:
    """Refuse."""
    raise UsageError(
      "model.name=encoder cannot generate text; choose "
      "model.name=transformer for that."
    )


def build(config: ConfigDict, vocab_size: int) -> Encoder:
  """Make the model that a config describes.

  Raises:
    UsageError: if the sizes do not fit together.
  """
  return Encoder(
    vocab_size=vocab_size,
    tie_embeddings=config.model.tie_embeddings,
    stack=TransformerStack(causal=False, **transformer_settings(config)),
  )
