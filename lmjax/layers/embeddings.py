# SPDX-License-Identifier: Apache-2.0
"""Token embeddings and output layers."""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.ops.matmul import product
from lmjax.types import Array

# Weights of an output layer: table_VD, and bias_V or None.
Unembedding = tuple[Array, Array | None]


def make_logits(hidden: Array, unembedding: Unembedding) -> Array:
  """Return the logits of all tokens: [..., D] to float32 [..., V].

  The matmul runs in the dtype of the hidden vectors.
  """
  table_VD, bias_V = unembedding
  table_VD = table_VD.astype(hidden.dtype)
  hidden_ND = hidden.reshape(-1, hidden.shape[-1])
  if len(hidden_ND) == 1:
    logits = product(hidden_ND, table_VD, (1, 1))
  else:
    # With the table as the first operand it is not transposed.
    logits = product(table_VD, hidden_ND, (1, 1)).T
  logits = logits.reshape(*hidden.shape[:-1], len(table_VD))
  if bias_V is None:
    return logits
  return logits + jnp.expand_dims(bias_V, range(logits.ndim - 1))


class TokenEmbedding(nn.Module):
  """A table of token embeddings, which can also be the output layer.

  Attributes:
    vocab_size: number of tokens.
    width: width of a vector.
    init_scale: standard deviation at initialization.
    dtype: dtype of the vectors.
    param_dtype: dtype of the table.
  """

  vocab_size: int
  width: int
  init_scale: float = 0.02
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Create the table, [V, E]."""
    self.embedding = self.param(
      "embedding",
      nn.initializers.normal(self.init_scale),
      (self.vocab_size, self.width),
      self.param_dtype,
    )

  def __call__(self, tokens_BT: Array) -> Array:
    """Return the token embeddings: int [B, T] to [B, T, E]."""
    return jnp.take(self.embedding, tokens_BT, axis=0).astype(self.dtype)

  def unembedding(self) -> Unembedding:
    """Return the table (tied weights; Press & Wolf 2017, arXiv:1608.05859)."""
    return self.embedding, None


class OutputLayer(nn.Module):
  """An output layer with its own table.

  Attributes:
    vocab_size: number of tokens V.
    width: width D of the hidden vectors.
    use_bias: whether each token has a bias.
    init_scale: standard deviation of the table at initialization.
    param_dtype: dtype of the parameters.
  """

  vocab_size: int
  width: int
  use_bias: bool = True
  init_scale: float = 0.02
  param_dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Create the table, [V, D], and the bias."""
    self.table = self.param(
      "table",
      nn.initializers.normal(self.init_scale),
      (self.vocab_size, self.width),
      self.param_dtype,
    )
    if self.use_bias:
      self.bias = self.param(
        "bias", nn.initializers.zeros, (self.vocab_size,), self.param_dtype
      )

  def unembedding(self) -> Unembedding:
    """Return the table and the bias or None."""
    return self.table, self.bias if self.use_bias else None
