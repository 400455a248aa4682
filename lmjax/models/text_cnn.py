# SPDX-License-Identifier: Apache-2.0
"""The convolutional text encoder TextCNN (Kim 2014, arXiv:1408.5882)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.centered_convolution import CenteredConvolution
from lmjax.layers.dropout import Dropout
from lmjax.layers.embedding_dropout import EmbeddingDropout
from lmjax.layers.embeddings import TokenEmbedding
from lmjax.models.text_encoder import TextEncoder
from lmjax.types import Array


class TextCNN(TextEncoder):
  """Parallel convolutions of several kernel sizes, and ReLU.

  With `classification.pooling=max` it is the classifier of Kim 2014.

  Attributes:
    vocab_size: vocabulary size V.
    embedding_width: width E of the token embeddings.
    width: number of feature maps per kernel size.
    kernel_sizes: number of tokens that each convolution covers.
    initializer: initializer of kernels, one of INITIALIZERS.
    dropout: dropout rate of the embeddings.
    embedding_dropout: fraction of the vocabulary dropped; see EmbeddingDropout.
    embedding_scale: standard deviation of the embeddings at initialization.
      Kim's U(−0.25, 0.25) gives rare words, whose vectors hardly train, more
      weight.
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

  input_width = None  # convolutions adapt to any width
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
    """Width of the hidden vectors."""
    return self.width * len(self.kernel_sizes)

  def embed(self, tokens_BT: Array) -> Array:
    """Return the token embeddings, [B, T, E]."""
    return self.drop_tokens(self.embedding(tokens_BT), tokens_BT)

  def contextualize(self, x_BTE: Array, mask_BT: Array) -> Array:
    """Transform embeddings: [B, T, any] to [B, T, hidden_width]."""
    # No max over time here: the pooling of the head does it.
    return jax.nn.relu(self.convolution(self.drop(x_BTE), mask_BT))


def build(config: ConfigDict, vocab_size: int) -> TextCNN:
  """Build the encoder of a config.

  Raises:
    UsageError: if the kernel sizes are not distinct positive integers.
  """
  model = config.model
  sizes = tuple(model.kernel_sizes)
  if not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes):
    raise UsageError(
      f"model.kernel_sizes={sizes} must be distinct integers of at least 1."
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
