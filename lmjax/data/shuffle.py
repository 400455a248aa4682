# SPDX-License-Identifier: Apache-2.0
"""Stateless pseudo-random permutations and samples.

A permutation of the first n integers is a Feistel network: a bijection on pairs
of halves whatever its round function is (Luby & Rackoff 1988); values that fall
outside the first n are sent through again until they fall inside (Black &
Rogaway 2002). Samples are those of SplitMix64, started at a key.
"""

import math

import numpy as np

_ROUNDS = 4
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(values: np.ndarray) -> np.ndarray:
  """Hash uint64 to uint64 (SplitMix64's finaliser, Steele et al. 2014)."""
  with np.errstate(over="ignore"):
    z = np.asarray(values, np.uint64) + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def permute(indices: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
  """Send each index to its place in a permutation of range(size).

  Args:
    indices: integers in range(size), any shape.
    size: how many integers are permuted.
    keys: uint64 of the shape of `indices`; each names a permutation.

  Returns:
    int64 of the shape of `indices`; distinct for distinct indices of one key.
  """
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
  bits = mix(keys[:, None] + steps) >> np.uint64(11)
  return (bits * 2.0**-53).reshape(-1, *shape)
