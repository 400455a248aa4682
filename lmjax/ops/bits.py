# SPDX-License-Identifier: Apache-2.0
"""bfloat16 arrays as plain bits, where XLA's CPU backend is clumsy with them.

Outside matmuls that backend computes bfloat16 in float32, so that a loop which
stores a slice converts the whole array to float32 and back at every step. Of
unsigned integers it knows nothing to improve. Elsewhere the bits cost nothing.
"""

import jax
import jax.numpy as jnp

from lmjax.types import Array


def as_bits(x: Array) -> Array:
  """Reinterpret bfloat16 as uint16; leave other dtypes alone."""
  if x.dtype != jnp.bfloat16:
    return x
  return jax.lax.bitcast_convert_type(x, jnp.uint16)


def from_bits(x: Array, dtype: jnp.dtype) -> Array:
  """Undo `as_bits` for an array that had this dtype."""
  return x if x.dtype == dtype else jax.lax.bitcast_convert_type(x, dtype)


def transposed(x: Array) -> Array:
  """Copy a matrix into its transpose, for a matmul to read.

  XLA's CPU backend folds a plain transpose of a bfloat16 matrix into the matmul
  and, as it has no kernel for that, runs it in float32. It cannot
  remove a loop whose number of iterations, always one, comes out of a barrier.
  """
  if x.dtype != jnp.bfloat16 or jax.default_backend() != "cpu":
    return x.T
  bits = as_bits(x)
  rounds = jax.lax.optimization_barrier(jnp.int32(1))
  empty = jnp.zeros(bits.shape[::-1], bits.dtype)
  copy = jax.lax.fori_loop(0, rounds, lambda _, __: bits.T, empty)
  return from_bits(copy, x.dtype)
