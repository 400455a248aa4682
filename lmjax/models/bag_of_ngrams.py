# SPDX-License-Identifier: Apache-2.0
"""Bags of words and n-grams, as fastText's (Joulin et al. 2016).

arXiv:1607.01759. A linear model of the mean of their vectors is
`classification.pooling=mean`.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.layers.dropout import Dropout
from lmjax.layers.embedding_dropout import EmbeddingDropout
from lmjax.layers.embeddings import TokenEmbedding
from lmjax.models.text_encoder import TextEncoder
from lmjax.ops.ngram_hash import ngram_buckets
from lmjax.types import Array


class BagOfNgrams(TextEncoder):
  """The vector of each token plus those of the n-grams that end with it.

  N-grams share the vectors of hash buckets.

  Attributes:
    vocab_size: number of tokens V.
    width: width D of the vectors.
    order: length of the longest n-grams; 1 for words alone.
    num_buckets: how many vectors the n-grams of all orders share.
    dropout: share of features dropped on the vectors.
    embedding_dropout: share of the vocabulary; see EmbeddingDropout.
    embedding_scale: standard deviation of the vectors at initialization.
    dtype: dtype of the sums.
    param_dtype: dtype of the parameters.
  """

  vocab_size: int
  width: int
  order: int
  num_buckets: int
  dropout: float = 0.0
  embedding_dropout: float = 0.0
  embedding_scale: float = 0.03
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  backward_width = 0

  def setup(self):
    """Create the tables."""
    options = dict(
      init_scale=self.embedding_scale,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    self.embedding = TokenEmbedding(self.vocab_size, self.width, **options)
    if self.order > 1:
      self.ngrams = TokenEmbedding(self.num_buckets, self.width, **options)
    self.drop_tokens = EmbeddingDropout(self.embedding_dropout, self.vocab_size)
    self.drop = Dropout(self.dropout)

  @property
  def input_width(self) -> int:
    """Width of what it reads."""
    return self.width

  @property
  def hidden_width(self) -> int:
    """Width of what comes out."""
    return self.width

  def embed(self, tokens_BT: Array) -> Array:
    """Look tokens and n-grams up and add them, [B, T, D]."""
    x_BTD = self.drop_tokens(self.embedding(tokens_BT), tokens_BT)
    for order in range(2, self.order + 1):
      bucket_BT = ngram_buckets(tokens_BT, order, self.num_buckets)
      vectors_BTD = self.ngrams(jnp.maximum(bucket_BT, 0))
      x_BTD += jnp.where(bucket_BT[..., None] < 0, 0, vectors_BTD)
    return x_BTD

  def contextualize(self, x_BTD: Array, mask_BT: Array) -> Array:
    """Weigh, so that the mean over tokens is that over words and n-grams."""
    tokens_B = mask_BT.sum(axis=1, dtype=jnp.float32)
    grams_B = sum(
      jnp.maximum(tokens_B - shorter, 0.0) for shorter in range(self.order)
    )
    scale_B = tokens_B / jnp.maximum(grams_B, 1.0)
    return self.drop(x_BTD) * scale_B[:, None, None].astype(x_BTD.dtype)


def build(config: ConfigDict, vocab_size: int) -> BagOfNgrams:
  """Make the encoder that a config describes."""
  model = config.model
  return BagOfNgrams(
    vocab_size=vocab_size,
    width=model.width,
    order=model.order,
    num_buckets=model.num_buckets,
    dropout=model.dropout,
    embedding_dropout=model.embedding_dropout,
    embedding_scale=model.embedding_scale,
    dtype=jnp.dtype(model.dtype),
    param_dtype=jnp.dtype(model.param_dtype),
  )
