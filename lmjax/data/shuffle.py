# SPDX-License-Identifier: Apache-2.0
"""Stateless pseudo-random permutations and samples.

A permutation of range(n) is a Feistel network on the bits of the integers: a
bijection, whatever its round function (Luby & Rackoff 1988). As its domain is a
power of 4, values from n upwards are permuted again until they are below n
(cycle walking, Black & Rogaway 2002). Samples are those of the SplitMix64
generator with the key as its seed. Any element is computed without the others,
so a run resumes at any step without replaying or storing an order.
"""

import math

import numpy as np

# Four rounds make a Feistel network a strong pseudo-random permutation.
_ROUNDS = 4
# The increment of SplitMix64: 2⁶⁴ divided by the golden ratio, made odd.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(values: np.ndarray) -> np.ndarray:
  """Hash uint64 to uint64 with the finalizer of SplitMix64.

  It is a bijection, so distinct keys stay distinct (Steele et al. 2014).
  """
  # Arithmetic is modulo 2⁶⁴; NumPy warns of that for scalars.
  with np.errstate(over="ignore"):
    z = np.asarray(values, np.uint64) + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def permute(indices: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
  """Return the images of indices under pseudo-random permutations.

  Over all indices of one key the results are a permutation of range(size):

  >>> sorted(permute(np.arange(5), 5, np.full(5, 7, np.uint64)))
  [0, 1, 2, 3, 4]

  Args:
    indices: integers in range(size), any shape.
    size: number of integers that are permuted.
    keys: uint64 of the shape of `indices`; each selects a permutation.

  Returns:
    int64 of the shape of `indices`; distinct for distinct indices of one key.
  """
  # Both halves have the same number of bits, so the domain 4^half is at most
  # four times `size`: an index takes fewer than four passes on average.
  half = np.uint64(max(1, (int(size - 1).bit_length() + 1) // 2))
  low_bits = (np.uint64(1) << half) - np.uint64(1)
  values = np.array(indices, np.uint64)
  keys = np.asarray(keys, np.uint64)
  outside = np.ones(values.shape, bool)
  while outside.any():
    left, right = values[outside] >> half, values[outside] & low_bits
    for round_number in range(_ROUNDS):
      noise = mix(right ^ mix(keys[outside] + np.uint64(round_number)))
      left, right = right, left ^ (noise & low_bits)
    values[outside] = (left << half) | right
    outside = values >= np.uint64(size)
  return values.astype(np.int64)


def uniform(keys: np.ndarray, *shape: int) -> np.ndarray:
  """Sample uniformly from [0, 1): float64 [B, *shape], a function of each key.

  Args:
    keys: uint64 [B], distinct and mixed.
    *shape: shape of the samples of each key.
  """
  steps = np.arange(math.prod(shape), dtype=np.uint64) * _GOLDEN
  # A float64 has 53 bits of precision: use the upper 53 of 64.
  bits = mix(keys[:, None] + steps) >> np.uint64(11)
  return (bits * 2.0**-53).reshape(-1, *shape)
