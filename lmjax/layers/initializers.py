# SPDX-License-Identifier: Apache-2.0
"""Initialisers of kernels by name, for matrices [inputs, outputs]."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.types import Array

Initializer = nn.initializers.Initializer


def orthogonal(
  key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32
) -> Array:
  """Return a random matrix with orthonormal rows or columns, the fewer of both.

  Saxe et al. 2013 (arXiv:1312.6120). It is the nearest to a matrix of normal
  numbers, found by Newton–Schulz iteration (Björck & Bowie 1971): by products
  alone, where QR decompositions, several of which in one program can wait for
  each other without end in XLA's CPU backend, are not needed.
  """
  highest = jax.lax.Precision.HIGHEST

  def approach(_, x: Array) -> Array:
    gram = jnp.matmul(x, x.T, precision=highest)
    return 1.5 * x - 0.5 * jnp.matmul(gram, x, precision=highest)

  rows, columns = sorted(shape)
  x = jax.random.normal(key, (rows, columns), jnp.float32)
  # Singular values are now at most 1; each round makes small ones larger by
  # half, so that forty lift even a millionth.
  x /= math.sqrt(rows) + math.sqrt(columns)
  x = jax.lax.fori_loop(0, 40, approach, x)
  return (x if x.shape == shape else x.T).astype(dtype)


def _plain(initializer: Initializer):
  """Ignore the scale: the shape alone says how large numbers are to be."""
  return lambda scale: initializer


def uniform(key: Array, shape: tuple[int, int], dtype: jnp.dtype) -> Array:
  """Sample from the range ±1/√inputs, as PyTorch does for recurrent kernels."""
  limit = shape[0] ** -0.5
  return jax.random.uniform(key, shape, dtype, -limit, limit)


def by_gate(initializer: Initializer, num_gates: int) -> Initializer:
  """Initialize the matrix of each gate separately, and concatenate them."""

  def init(key: Array, shape: tuple[int, int], dtype: jnp.dtype) -> Array:
    keys = jax.random.split(key, num_gates)
    shape = (shape[0], shape[1] // num_gates)
    return jnp.concatenate([initializer(k, shape, dtype) for k in keys], axis=1)

  return init


# Name → (standard deviation, read by "normal" alone) → initializer.
INITIALIZERS = {
  "normal": nn.initializers.normal,
  "uniform": _plain(uniform),
  # Glorot & Bengio 2010
  "glorot_uniform": _plain(nn.initializers.glorot_uniform()),
  "glorot_normal": _plain(nn.initializers.glorot_normal()),
  "he_normal": _plain(nn.initializers.he_normal()),  # arXiv:1502.01852
  "lecun_normal": _plain(nn.initializers.lecun_normal()),  # LeCun et al. 1998
  "orthogonal": _plain(orthogonal),
}
