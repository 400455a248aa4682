# SPDX-License-Identifier: Apache-2.0
"""The bag-of-n-grams encoder of fastText (Joulin et al. 2016)."""

import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.layers.dropout import Dropout
from lmjax.layers.embedding_dropout import EmbeddingDropout
from lmjax.layers.embeddings import TokenEmbedding
from lmjax.models.text_encoder import TextEncoder
from lmjax.ops.ngram_hash import ngram_buckets
from lmjax.types import Array


class BagOfNgrams(TextEncoder):
  """At each token, its vector plus those of the n-grams that end there.

  N-grams are hashed into buckets, each with one vector. With
  `classification.pooling=mean` it is the linear classifier of fastText (Joulin
  et al. 2016, arXiv:1607.01759).

  Attributes:
    vocab_size: vocabulary size V.
    width: width D of the vectors.
    order: length of the longest n-grams; 1 for words only.
    num_buckets: number of hash buckets for the n-grams of all orders.
    dropout: dropout rate of the vectors.
    embedding_dropout: fraction of the vocabulary dropped; see EmbeddingDropout.
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
    """Width of the embeddings."""
    return self.width

  @property
  def hidden_width(self) -> int:
    """Width of the hidden vectors."""
    return self.width

  def embed(self, tokens_BT: Array) -> Array:
    """Return the sums of token and n-gram vectors, [B, T, D]."""
    x_BTD = self.drop_tokens(self.embedding(tokens_BT), tokens_BT)
    for order in range(2, self.order + 1):
      bucket_BT = ngram_buckets(tokens_BT, order, self.num_buckets)
      # Bucket -1: no n-gram ends at the first n - 1 tokens.
      vectors_BTD = self.ngrams(jnp.maximum(bucket_BT, 0))
      x_BTD += jnp.where(bucket_BT[..., None] < 0, 0, vectors_BTD)
    return x_BTD

  def contextualize(self, x_BTD: Array, mask_BT: Array) -> Array:
    """Scale the vectors of each text, [B, T, D] to [B, T, D]."""
    # fastText averages over all words and n-grams of a text. A head averages
    # over tokens, so multiply by their ratio. N tokens have N - n + 1 n-grams.
    tokens_B = mask_BT.sum(axis=1, dtype=jnp.float32)
    features_B = sum(
      jnp.maximum(tokens_B - shorter, 0.0) for shorter in range(self.order)
    )
    scale_B = tokens_B / jnp.maximum(features_B, 1.0)
    return self.drop(x_BTD) * scale_B[:, None, None].astype(x_BTD.dtype)


def build(config: ConfigDict, vocab_size: int) -> BagOfNgrams:
  """Build the encoder of a config."""
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
