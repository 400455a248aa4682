# SPDX-License-Identifier: Apache-2.0
"""What attention adds to its scores for the distance of query and key."""

import math

import flax.linen as nn
import jax.numpy as jnp

from lmjax.types import Array


def buckets(
  distances_N: Array, causal: bool, num_buckets: int, max_distance: int
) -> Array:
  """Sort distances into buckets: near ones each alone, far ones together.

  >>> buckets([-1, 0, 3, 4, 8, 99], True, num_buckets=8, max_distance=16)
  [0, 0, 3, 4, 6, 7]

  Args:
    distances_N: query position - key position.
    causal: whether keys after the query, whose distance is negative, are
      invisible; else half of the buckets are reserved for them.
    num_buckets: how many there are.
    max_distance: from here on all are in the last one.
  """
  first_N, distances_N = 0, jnp.asarray(distances_N)
  if causal:
    distances_N = jnp.maximum(distances_N, 0)
  else:
    num_buckets //= 2
    first_N = jnp.where(distances_N < 0, num_buckets, 0)
    distances_N = jnp.abs(distances_N)
  alone = num_buckets // 2
  # The other buckets start at distances that grow geometrically.
  growth = (max_distance / alone) ** (1 / (num_buckets - alone))
  begins = [
    math.ceil(alone * growth**index - 1e-6)
    for index in range(1, num_buckets - alone)
  ]
  passed_N = jnp.sum(distances_N[:, None] >= jnp.array(begins)[None], axis=1)
  near = distances_N < alone
  return first_N + jnp.where(near, distances_N, alone + passed_N)


class RelativeBias(nn.Module):
  """One trained bias a head and bucket of distances.

  Raffel et al. 2020 (arXiv:1910.10683), whose numbers are the defaults.

  Attributes:
    num_heads: number H of query heads.
    causal: whether keys after a query are invisible.
    num_buckets: number of buckets.
    max_distance: all distances from this one share a bucket.
    init_scale: standard deviation at initialization.
    param_dtype: dtype of the biases.
  """

  num_heads: int
  causal: bool
  num_buckets: int = 32
  max_distance: int = 128
  init_scale: float = 0.02
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, distances_N: Array) -> Array:
    """Give distances, query - key, their biases: float32 [H, N]."""
    bias = self.param(
      "bias",
      nn.initializers.normal(self.init_scale),
      (self.num_buckets, self.num_heads),
      self.param_dtype,
    )
    bucket_N = buckets(
      distances_N, self.causal, self.num_buckets, self.max_distance
    )
    return bias.astype(jnp.float32)[bucket_N].T


def linear_biases(distances_N: Array, num_heads: int) -> Array:
  """Take from scores what grows with the distance, by head: float32 [H, N].

  ALiBi (Press et al. 2022, arXiv:2108.12409): the slopes are powers of two,
  from 2^(-8/H) down to 2^-8 if H is a power of two itself; else those of the
  next lower power, and every other one of the next higher.
  """

  def slopes(heads: int) -> list[float]:
    return [2.0 ** (-8.0 * (head + 1) / heads) for head in range(heads)]

  lower = 2 ** int(math.log2(num_heads))
  chosen = slopes(lower) + slopes(2 * lower)[::2][: num_heads - lower]
  distances_N = jnp.abs(distances_N).astype(jnp.float32)
  return -jnp.array(chosen)[:, None] * distances_N[None]
