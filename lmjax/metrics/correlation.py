# SPDX-License-Identifier: Apache-2.0
"""How far two lists of numbers agree in their order."""

from collections.abc import Sequence

import numpy as np


def spearman(x_N: Sequence[float], y_N: Sequence[float]) -> float:
  """Return Spearman's rank correlation; not a number if either is constant."""
  x_N, y_N = mean_ranks(x_N), mean_ranks(y_N)
  x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
  norm = np.sqrt((x_N @ x_N) * (y_N @ y_N))
  return float(x_N @ y_N / norm) if norm > 0 else float("nan")


def mean_ranks(values_N: Sequence[float]) -> np.ndarray:
  """Rank numbers from 1 on; equal ones share the mean of their places.

  >>> mean_ranks([5, 1, 5])
  [2.5, 1.0, 2.5]
  """
  _, which_N, counts = np.unique(
    values_N, return_inverse=True, return_counts=True
  )
  return (np.cumsum(counts) - (counts - 1) / 2)[which_N]
