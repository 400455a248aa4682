# SPDX-License-Identifier: Apache-2.0
"""Static word vectors: skip-gram, CBOW and GloVe."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lmjax.layers.embeddings import OutputLayer, TokenEmbedding
from lmjax.types import Array, PyTree


class WordVectors(nn.Module):
  """Two tables: vectors of words, and of words as the context of others.

  word2vec (Mikolov et al. 2013, arXiv:1310.4546); with biases, GloVe
  (Pennington et al. 2014, EMNLP).

  Attributes:
    vocab_size: vocabulary size V.
    width: width D of the vectors.
    use_biases: whether each word has a bias in both roles (GloVe).
    dtype: dtype of the returned vectors.
    param_dtype: dtype of the parameters.
  """

  kinds = ("word_vectors",)

  vocab_size: int
  width: int
  use_biases: bool = False
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Create the tables, [V, D] each."""
    # The standard deviation of word2vec's U(−1/2D, 1/2D).
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
    """Return word and context vectors: int [B, T] to [B, T, D] twice."""
    return self.words(tokens_BT), self.contexts(tokens_BT)

  def words(self, tokens_BT: Array) -> Array:
    """Return word vectors: int [B, T] to [B, T, D]."""
    return self.embedding(tokens_BT)

  def contexts(self, tokens_BT: Array) -> Array:
    """Return context vectors: int [B, T] to [B, T, D]."""
    table_VD, _ = self.output.unembedding()
    return jnp.take(table_VD, tokens_BT, axis=0).astype(self.dtype)

  def biases(self, tokens_BT: Array, contexts_BT: Array) -> Array:
    """Return the sums of word and context biases, float32 [B, T]."""
    _, bias_V = self.output.unembedding()
    sums = self.bias[tokens_BT] + bias_V[contexts_BT]
    return sums.astype(jnp.float32)

  @nn.nowrap
  def resolve_auto(self, with_resets: bool) -> dict[str, str]:
    """Return nothing: no setting is "auto"."""
    del with_resets
    return {}

  @nn.nowrap
  def estimate(
    self, tokens: np.ndarray, starts: np.ndarray, names: Sequence[str]
  ) -> dict[str, PyTree]:
    """Return nothing: no variable is estimated by counting."""
    del tokens, starts, names
    return {}

  @nn.nowrap
  def flops_per_token(self, seq_len: int) -> int:
    """Return 0: the number of pairs per token depends on the task."""
    del seq_len
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
