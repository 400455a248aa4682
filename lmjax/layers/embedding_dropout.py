# SPDX-License-Identifier: Apache-2.0
"""Dropout of whole rows of the embedding table."""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.dropout import Dropout
from lmjax.types import Array


class EmbeddingDropout(nn.Module):
  """Drop tokens of the vocabulary, wherever they occur in the batch.

  Merity et al. 2018 (arXiv:1708.02182), after Gal & Ghahramani 2016
  (arXiv:1512.05287). Where the table makes the logits too, it stays whole.

  Attributes:
    rate: fraction of the tokens whose vectors are set to zero; see Dropout.
    vocab_size: number of tokens V.
  """

  rate: float
  vocab_size: int

  @nn.compact
  def __call__(self, x_BTE: Array, tokens_BT: Array) -> Array:
    """Return the vectors of tokens with the dropped ones zero."""
    kept_V = Dropout(self.rate)(jnp.ones(self.vocab_size, x_BTE.dtype))
    return x_BTE * kept_V[tokens_BT][..., None]
