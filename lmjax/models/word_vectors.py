# SPDX-License-Identifier: Apache-2.0
"""Two vectors a word: one as itself, one as the context of others."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lmjax.layers.embeddings import OutputLayer, TokenEmbedding
from lmjax.types import Array, PyTree


class WordVectors(nn.Module):
  """Two tables, and for GloVe a bias a word in both roles.

  Mikolov et al. 2013 (arXiv:1310.4546); Pennington et al. 2014.

  Attributes:
    vocab_size: number of words V.
    width: width D of the vectors.
    use_biases: whether words have biases.
    dtype: dtype of the vectors that are looked up.
    param_dtype: dtype of the parameters.
  """

  kinds = ("word_vectors",)

  vocab_size: int
  width: int
  use_biases: bool = False
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Create the tables, [V, D] each, as spread as U(−1/2D, 1/2D)."""
    scale = 1.0 / (12**0.5 * self.width)
    self.embedding = TokenEmbedding(
      self.vocab_size,
      self.width,
      init_scale=scale,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    self.output = OutputLayer(
      self.vocab_size,
      self.width,
      use_bias=self.use_biases,
      init_scale=scale,
      param_dtype=self.param_dtype,
    )
    if self.use_biases:
      self.bias = self.param(
        "bias", nn.initializers.zeros, (self.vocab_size,), self.param_dtype
      )

  def __call__(self, tokens_BT: Array) -> tuple[Array, Array]:
    """Look words up in both roles: int [B, T] to [B, T, D] twice."""
    return self.words(tokens_BT), self.contexts(tokens_BT)

  def words(self, tokens_BT: Array) -> Array:
    """Look words up: int [B, T] to [B, T, D]."""
    return self.embedding(tokens_BT)

  def contexts(self, tokens_BT: Array) -> Array:
    """Look words up as contexts: int [B, T] to [B, T, D]."""
    table_VD, _ = self.output.unembedding()
    return jnp.take(table_VD, tokens_BT, axis=0).astype(self.dtype)

  def biases(self, tokens_BT: Array, contexts_BT: Array) -> Array:
    """Add up the biases of words and their contexts, float32 [B, T]."""
    _, bias_V = self.output.unembedding()
    sums = self.bias[tokens_BT] + bias_V[contexts_BT]
    return sums.astype(jnp.float32)

  @nn.nowrap
  def choices(self, with_resets: bool) -> dict[str, str]:
    """Name what each "auto" stands for: there is none."""
    del with_resets
    return {}

  @nn.nowrap
  def estimate(
    self, tokens: np.ndarray, starts: np.ndarray, names: Sequence[str]
  ) -> dict[str, PyTree]:
    """Count nothing in the text."""
    del tokens, starts, names
    return {}

  @nn.nowrap
  def flops_per_token(self, window: int) -> int:
    """Count no matmul: how many words a word meets is the task's affair."""
    del window
    return 0


def build(
  config: ConfigDict, vocab_size: int, use_biases: bool = False
) -> WordVectors:
  """Build the model of a config."""
  model = config.model
  return WordVectors(
    vocab_size=vocab_size,
    width=model.width,
    use_biases=use_biases,
    dtype=jnp.dtype(model.dtype),
    param_dtype=jnp.dtype(model.param_dtype),
  )
