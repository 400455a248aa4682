# SPDX-License-Identifier: Apache-2.0
"""Convolutions over whole texts (Kim 2014, arXiv:1408.5882)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.centered_convolution import CenteredConvolution
from lmjax.layers.dropout import Dropout
from lmjax.layers.embedding_dropout import EmbeddingDropout
from lmjax.layers.embeddings import TokenEmbedding
from lmjax.layers.initializers import INITIALIZERS
from lmjax.models.choices import check_choice
from lmjax.models.text_encoder import TextEncoder
from lmjax.types import Array


class TextCNN(TextEncoder):
  """Feature maps of windows of several sizes, of which a head takes the maxima.

  Attributes:
    vocab_size: number of tokens V.
    embedding_width: width E of the token embeddings.
    width: number of feature maps of each size.
    kernel_sizes: how many tokens a window has.
    initializer: how kernels are drawn.
    dropout: share of features dropped on the embeddings.
    embedding_dropout: share of the vocabulary; see EmbeddingDropout.
    embedding_scale: standard deviation of the embeddings at initialization.
      Kim's U(−0.25, 0.25) lets words that are rare or unknown say more.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  vocab_size: int
  embedding_width: int
  width: int
  kernel_sizes: Sequence[int]
  initializer: str = "glorot_uniform"
  dropout: float = 0.0
  embedding_dropout: float = 0.0
  embedding_scale: float = 0.03
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  input_width = None
  backward_width = 0

  def setup(self):
    """Create the layers."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    self.embedding = TokenEmbedding(
      self.vocab_size,
      self.embedding_width,
      init_scale=self.embedding_scale,
      **dtypes,
    )
    self.convolution = CenteredConvolution(
      self.width, self.kernel_sizes, initializer=self.initializer, **dtypes
    )
    self.drop_tokens = EmbeddingDropout(self.embedding_dropout, self.vocab_size)
    self.drop = Dropout(self.dropout)

  @property
  def hidden_width(self) -> int:
    """Width of what comes out."""
    return self.width * len(self.kernel_sizes)

  def embed(self, tokens_BT: Array) -> Array:
    """Look tokens up, [B, T, E]."""
    return self.drop_tokens(self.embedding(tokens_BT), tokens_BT)

  def contextualize(self, x_BTE: Array, mask_BT: Array) -> Array:
    """Read vectors of tokens: [B, T, any] to [B, T, hidden_width]."""
    return jax.nn.relu(self.convolution(self.drop(x_BTE), mask_BT))


def build(config: ConfigDict, vocab_size: int) -> TextCNN:
  """Make the encoder that a config describes.

  Raises:
    UsageError: if a choice is not known or windows have no size.
  """
  model = config.model
  check_choice(model, "initializer", INITIALIZERS)
  sizes = tuple(model.kernel_sizes)
  if not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes):
    raise UsageError(
      f"model.kernel_sizes={sizes} must be different numbers from 1 on."
    )
  return TextCNN(
    vocab_size=vocab_size,
    embedding_width=model.embedding_width or model.width,
    width=model.width,
    kernel_sizes=sizes,
    initializer=model.initializer,
    dropout=model.dropout,
    embedding_dropout=model.embedding_dropout,
    embedding_scale=model.embedding_scale,
    dtype=jnp.dtype(model.dtype),
    param_dtype=jnp.dtype(model.param_dtype),
  )
