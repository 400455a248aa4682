# SPDX-License-Identifier: Apache-2.0
"""Products of groups of rows with a matrix each.

Dimension letters:

    Q  rows of one block
    R  rows of all blocks
"""

import jax
import jax.numpy as jnp

from lmjax.ops.matmul import product, wide
from lmjax.types import Array


def grouped_matmul(x_NQD: Array, kernels_XDF: Array, group_N: Array) -> Array:
  """Multiply blocks of rows, each by the kernel of its group.

  Blocks let rows be as many a group as they happen to be, in arrays of fixed
  shape (Gale et al. 2022, arXiv:2211.15841). On a CPU one loop goes over
  blocks, with a hand-written gradient; `jax.lax.ragged_dot`, which other
  platforms have kernels for, would there multiply all rows by all kernels.

  Args:
    x_NQD: N blocks of Q rows.
    kernels_XDF: a kernel a group, of the same dtype.
    group_N: the group of each block, in ascending order.

  Returns:
    [N, Q, F], in float32 for half-precision inputs.
  """
  if jax.default_backend() == "cpu":
    return loop_matmul(x_NQD, kernels_XDF, group_N)
  return ragged_matmul(x_NQD, kernels_XDF, group_N)


def ragged_matmul(x_NQD: Array, kernels_XDF: Array, group_N: Array) -> Array:
  """Do so by one ragged product."""
  number, size, width = x_NQD.shape
  groups = jnp.arange(len(kernels_XDF))
  sizes_X = size * jnp.sum(
    group_N[:, None] == groups[None], axis=0, dtype=jnp.int32
  )
  y_RF = jax.lax.ragged_dot(
    x_NQD.reshape(-1, width),
    kernels_XDF,
    sizes_X,
    preferred_element_type=wide(x_NQD.dtype),
  )
  return y_RF.reshape(number, size, -1)


@jax.custom_vjp
def loop_matmul(x_NQD: Array, kernels_XDF: Array, group_N: Array) -> Array:
  """Do so block by block."""

  def one(_, block):
    x_QD, group = block
    return None, product(x_QD, kernels_XDF[group])

  return jax.lax.scan(one, None, (x_NQD, group_N))[1]


def _fwd(x_NQD, kernels_XDF, group_N):
  saved = (x_NQD, kernels_XDF, group_N)
  return loop_matmul(*saved), saved


def _bwd(saved, dy_NQF):
  x_NQD, kernels_XDF, group_N = saved
  dy_NQF = dy_NQF.astype(x_NQD.dtype)

  def one(dkernels_XDF, block):
    x_QD, dy_QF, group = block
    dx_QD = product(dy_QF, kernels_XDF[group], (1, 1)).astype(x_QD.dtype)
    return dkernels_XDF.at[group].add(product(x_QD, dy_QF, (0, 0))), dx_QD

  zeros = jnp.zeros(kernels_XDF.shape, wide(kernels_XDF.dtype))
  dkernels_XDF, dx_NQD = jax.lax.scan(one, zeros, (x_NQD, dy_NQF, group_N))
  return dx_NQD, dkernels_XDF.astype(kernels_XDF.dtype), None


loop_matmul.defvjp(_fwd, _bwd)
