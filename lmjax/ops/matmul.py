# SPDX-License-Identifier: Apache-2.0
"""Matrix products whose gradients stay in the dtype of the product.

JAX differentiates a bfloat16 product that accumulates in float32 into float32
products, because its cotangent is float32; two thirds of a training step would
run at their speed. Here the cotangent is rounded like the activations are.
"""

import itertools

import jax
import jax.numpy as jnp

from lmjax.ops.bits import transposed
from lmjax.types import Array


def wide(dtype: jnp.dtype) -> jnp.dtype:
  """Choose the dtype of sums over arrays of a dtype: float32 at least."""
  return jnp.promote_types(dtype, jnp.float32)


def product(a: Array, b: Array, contracted: tuple[int, int] = (1, 0)) -> Array:
  """Multiply matrices, contracting an axis of each.

  Sums are at least float32, and so is what is returned. Its gradient is JAX's;
  `matmul` has a faster one.
  """
  dimensions = ((contracted[:1], contracted[1:]), ((), ()))
  return jax.lax.dot_general(
    a, b, dimensions, preferred_element_type=wide(a.dtype)
  )


@jax.custom_vjp
def matmul(x_ND: Array, kernels: tuple[Array, ...]) -> tuple[Array, ...]:
  """Multiply a matrix by several of its dtype, in one product.

  The backward pass has separate products: concatenating their gradients would
  copy all of them once more.

  Args:
    x_ND: [N, D].
    kernels: [D, F] each, of any F.

  Returns:
    [N, F] for each kernel, in float32 for half-precision inputs.
  """
  if len(kernels) == 1:
    return (product(x_ND, kernels[0]),)
  ends = list(itertools.accumulate(kernel.shape[1] for kernel in kernels))
  y_NF = product(x_ND, jnp.concatenate(kernels, axis=1))
  return tuple(jnp.split(y_NF, ends[:-1], axis=1))


def _fwd(x_ND, kernels):
  return matmul(x_ND, kernels), (x_ND, kernels)


def _bwd(saved, gradients):
  x_ND, kernels = saved
  gradients = [dy_NF.astype(x_ND.dtype) for dy_NF in gradients]
  dx_ND = sum(
    product(dy_NF, kernel_DF, (1, 1))
    for dy_NF, kernel_DF in zip(gradients, kernels, strict=True)
  )
  dkernels = [
    _kernel_gradient(x_ND, dy_NF).astype(x_ND.dtype) for dy_NF in gradients
  ]
  return dx_ND.astype(x_ND.dtype), tuple(dkernels)


def _kernel_gradient(x_ND: Array, dy_NF: Array) -> Array:
  if x_ND.dtype != jnp.bfloat16 or jax.default_backend() != "cpu":
    return product(x_ND, dy_NF, (0, 0))
  if x_ND.shape[1] <= dy_NF.shape[1]:  # a copy of the smaller, see transposed
    return product(transposed(x_ND), dy_NF)
  dkernel_FD = product(transposed(dy_NF), x_ND)
  return transposed(dkernel_FD.astype(x_ND.dtype))


matmul.defvjp(_fwd, _bwd)
