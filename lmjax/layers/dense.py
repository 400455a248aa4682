# SPDX-License-Identifier: Apache-2.0
"""Affine maps between groups of axes."""

import math

import flax.linen as nn
import jax.numpy as jnp

from lmjax.ops.matmul import matmul
from lmjax.types import Array


class Dense(nn.Module):
  """Contract the last axes of an array with a kernel.

  All other axes are flattened into one for the matmul: the gradient of the
  kernel is then a plain product of two matrices, where XLA's CPU backend would
  transpose three-dimensional activations first.

  Attributes:
    features: shape of the output's last axes.
    num_contracted: how many of the input's last axes are contracted.
    use_bias: whether a bias is added.
    init_scale: standard deviation of the kernel at initialisation.
    dtype: dtype of the matmul and of the output; it accumulates in float32.
    param_dtype: dtype of the parameters.
  """

  features: tuple[int, ...]
  num_contracted: int = 1
  use_bias: bool = False
  init_scale: float = 0.02
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Map [..., *inputs] to [..., *features]."""
    kept = x.ndim - self.num_contracted
    batch, inputs = x.shape[:kept], x.shape[kept:]
    kernel = self.param(
      "kernel",
      nn.initializers.normal(self.init_scale),
      (*inputs, *self.features),
      self.param_dtype,
    )
    width = math.prod(inputs)
    y = matmul(
      x.reshape(-1, width).astype(self.dtype),
      kernel.reshape(width, -1).astype(self.dtype),
    )
    y = y.reshape(*batch, *self.features)
    if self.use_bias:
      bias = self.param(
        "bias", nn.initializers.zeros, self.features, self.param_dtype
      )
      y += bias.astype(jnp.float32)
    return y.astype(self.dtype)
