# SPDX-License-Identifier: Apache-2.0
"""Matrix products whose gradients stay in the dtype of the product.

JAX differentiates a bfloat16 product that accumulates in float32 into float32
products, because its cotangent is float32; two thirds of a training step would
run at their speed. Here the cotangent is rounded like the activations are.
"""

import jax
import jax.numpy as jnp

from lmjax.ops.bits import transposed
from lmjax.types import Array


def wide(dtype: jnp.dtype) -> jnp.dtype:
  """Choose the dtype of sums over arrays of a dtype: float32 at least."""
  return jnp.promote_types(dtype, jnp.float32)


def product(a: Array, b: Array, contracted: tuple[int, int] = (1, 0)) -> Array:
  """Multiply matrices, contracting an axis of each, without a gradient.

  Sums are at least float32, and so is what is returned.
  """
  dimensions = ((contracted[:1], contracted[1:]), ((), ()))
  return jax.lax.dot_general(
    a, b, dimensions, preferred_element_type=wide(a.dtype)
  )


@jax.custom_vjp
def matmul(x_ND: Array, kernel_DF: Array) -> Array:
  """Multiply matrices of one dtype, accumulating in float32 at least.

  Returns:
    [N, F], in float32 for half-precision inputs.
  """
  return product(x_ND, kernel_DF, (1, 0))


def _fwd(x_ND, kernel_DF):
  return matmul(x_ND, kernel_DF), (x_ND, kernel_DF)


def _bwd(saved, dy_NF):
  x_ND, kernel_DF = saved
  dy_NF = dy_NF.astype(x_ND.dtype)
  dx_ND = product(dy_NF, kernel_DF, (1, 1)).astype(x_ND.dtype)
  if x_ND.dtype != jnp.bfloat16 or jax.default_backend() != "cpu":
    dkernel_DF = product(x_ND, dy_NF, (0, 0))
  elif x_ND.shape[1] <= dy_NF.shape[1]:  # a copy of the smaller, see transposed
    dkernel_DF = product(transposed(x_ND), dy_NF, (1, 0))
  else:
    dkernel_FD = product(transposed(dy_NF), x_ND, (1, 0))
    dkernel_DF = transposed(dkernel_FD.astype(kernel_DF.dtype))
  return dx_ND, dkernel_DF.astype(kernel_DF.dtype)


matmul.defvjp(_fwd, _bwd)
