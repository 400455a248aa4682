# SPDX-License-Identifier: Apache-2.0
"""From tokens to vectors, and from vectors to logits over tokens."""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.types import Array


def _logits(hidden_BTD: Array, table_DV: Array, dtype: jnp.dtype) -> Array:
  return jnp.matmul(
    hidden_BTD.astype(dtype),
    table_DV.astype(dtype),
    preferred_element_type=jnp.float32,
  )


class TokenEmbedding(nn.Module):
  """A table with one vector a token, usable in both directions.

  Attributes:
    vocab_size: number of tokens.
    width: width of a vector.
    init_scale: standard deviation at initialisation.
    dtype: dtype of the vectors and of the matmul that makes logits.
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
    """Look tokens up: int [B, T] to [B, T, E]."""
    return jnp.take(self.embedding, tokens_BT, axis=0).astype(self.dtype)

  def logits(self, hidden_BTE: Array) -> Array:
    """Score every token (Press & Wolf 2017, arXiv:1608.05859).

    Returns:
      float32 logits, [B, T, V].
    """
    return _logits(hidden_BTE, self.embedding.T, self.dtype)


class OutputLayer(nn.Module):
  """An affine map to logits with a table of its own.

  Attributes:
    vocab_size: number of tokens.
    use_bias: whether each token has a bias.
    init_scale: standard deviation of the kernel at initialisation.
    dtype: dtype of the matmul; logits are float32 always.
    param_dtype: dtype of the parameters.
  """

  vocab_size: int
  use_bias: bool = True
  init_scale: float = 0.02
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, hidden_BTD: Array) -> Array:
    """Score every token: [B, T, D] to float32 [B, T, V]."""
    kernel_DV = self.param(
      "kernel",
      nn.initializers.normal(self.init_scale),
      (hidden_BTD.shape[-1], self.vocab_size),
      self.param_dtype,
    )
    logits_BTV = _logits(hidden_BTD, kernel_DV, self.dtype)
    if not self.use_bias:
      return logits_BTV
    bias = self.param(
      "bias", nn.initializers.zeros, (self.vocab_size,), self.param_dtype
    )
    return logits_BTV + bias.astype(jnp.float32)
