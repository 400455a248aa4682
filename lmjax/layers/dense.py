# SPDX-License-Identifier: Apache-2.0
"""Affine maps between groups of axes."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.initializers import INITIALIZERS
from lmjax.ops.matmul import matmul
from lmjax.types import Array

Parameters = tuple[Array, Array | None]  # kernel [*inputs, *features], bias


def _parameters(
  module: nn.Module, inputs: tuple[int, ...], features: tuple[int, ...]
) -> Parameters:
  """Make the parameters of a module that is being called."""

  def init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    matrix = (math.prod(inputs), math.prod(features))
    initializer = INITIALIZERS[module.initializer](module.init_scale)
    return initializer(key, matrix, dtype).reshape(shape)

  kernel = module.param(
    "kernel", init, (*inputs, *features), module.param_dtype
  )
  if not module.use_bias:
    return kernel, None
  zeros = nn.initializers.zeros
  return kernel, module.param("bias", zeros, features, module.param_dtype)


class Affine(nn.Module):
  """The parameters of an affine map.

  Attributes:
    inputs: shape of what is mapped.
    features: shape of what it is mapped to.
    use_bias: whether a bias is added.
    init_scale: standard deviation of the kernel at initialization.
    initializer: initializer of the kernel; all but "normal" ignore the scale.
    param_dtype: dtype of the parameters.
  """

  inputs: tuple[int, ...]
  features: tuple[int, ...]
  use_bias: bool = False
  init_scale: float = 0.02
  initializer: str = "normal"
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self) -> Parameters:
    """Return the kernel, and the bias or None."""
    return _parameters(self, self.inputs, self.features)


def apply_affine(
  x: Array, maps: Sequence[Parameters], num_contracted: int, dtype: jnp.dtype
) -> list[Array]:
  """Map one array by several maps, in one matmul.

  All axes that stay are flattened into one: the gradient of the kernel is then
  a plain product of two matrices, where XLA's CPU backend would transpose
  three-dimensional activations first.

  Args:
    x: [..., *inputs].
    maps: kernel and bias of each.
    num_contracted: how many axes the inputs have.
    dtype: of the matmul and of the results; it accumulates in float32.

  Returns:
    An array [..., *features] for each map.
  """
  kept = x.ndim - num_contracted
  batch, width = x.shape[:kept], math.prod(x.shape[kept:])
  kernels = tuple(kernel.reshape(width, -1).astype(dtype) for kernel, _ in maps)
  products = matmul(x.reshape(-1, width).astype(dtype), kernels)
  results = []
  for (kernel, bias), y_NF in zip(maps, products, strict=True):
    y = y_NF.reshape(*batch, *kernel.shape[num_contracted:])
    if bias is not None:
      y += jnp.expand_dims(bias.astype(y.dtype), range(y.ndim - bias.ndim))
    results.append(y.astype(dtype))
  return results


class Dense(nn.Module):
  """Contract the last axes of an array with a kernel.

  Attributes:
    features: shape of the output's last axes.
    num_contracted: how many of the input's last axes are contracted.
    use_bias: whether a bias is added.
    init_scale: standard deviation of the kernel at initialization.
    initializer: initializer of the kernel; all but "normal" ignore the scale.
    dtype: dtype of the matmul and of the output; it accumulates in float32.
    param_dtype: dtype of the parameters.
  """

  features: tuple[int, ...]
  num_contracted: int = 1
  use_bias: bool = False
  init_scale: float = 0.02
  initializer: str = "normal"
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Map [..., *inputs] to [..., *features]."""
    inputs = x.shape[x.ndim - self.num_contracted :]
    parameters = _parameters(self, inputs, self.features)
    return apply_affine(x, [parameters], self.num_contracted, self.dtype)[0]
