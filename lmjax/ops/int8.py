# SPDX-License-Identifier: Apache-2.0
"""Arrays in eight bits: a quarter of float32 where they lie in memory.

Symmetric rounding to 255 steps, with a scale for each vector along the last
axis (Dettmers et al. 2022, arXiv:2208.07339, without its outliers).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.types import Array, PyTree

_SMALLEST = 1 << 12  # elements of an array that is worth it


class Int8(NamedTuple):
  """An array in eight bits.

  Attributes:
    values: int8, in the shape of the array.
    scales: what values count in, of the array's dtype; its last axis is 1.
  """

  values: Array
  scales: Array

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the array."""
    return self.values.shape


def quantize(x: Array, dtype: jnp.dtype | None = None) -> Int8:
  """Round an array.

  Args:
    x: any floats.
    dtype: of the scales; None for that of the array.
  """
  largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True).astype(jnp.float32)
  scales = jnp.where(largest > 0, largest / 127.0, 1.0)
  scales = scales.astype(dtype or x.dtype)
  values = jnp.round(x.astype(jnp.float32) / scales.astype(jnp.float32))
  return Int8(jnp.clip(values, -127, 127).astype(jnp.int8), scales)


def dense(x: Array | Int8, dtype: jnp.dtype | None = None) -> Array:
  """Return an array as floats, whether it is in eight bits or not."""
  if not isinstance(x, Int8):
    return x if dtype is None else x.astype(dtype)
  dtype = dtype or x.scales.dtype
  return x.values.astype(dtype) * x.scales.astype(dtype)


def quantize_weights(variables: PyTree) -> PyTree:
  """Round the large matrices of a model's parameters; leave all else."""

  def one(leaf: Array) -> Array | Int8:
    is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
    worth_it = leaf.ndim > 1 and leaf.size >= _SMALLEST
    return quantize(leaf) if is_float and worth_it else leaf

  return {**variables, "params": jax.tree.map(one, variables["params"])}


def dense_weights(variables: PyTree) -> PyTree:
  """Return all of a model's variables as floats."""
  return jax.tree.map(dense, variables, is_leaf=lambda x: isinstance(x, Int8))
