# SPDX-License-Identifier: Apache-2.0
"""Linear interpolation of language models (Jelinek & Mercer 1980)."""

import numpy as np


def interpolate(log_probs_MN: np.ndarray, weights_M: np.ndarray) -> np.ndarray:
  """Mix what several models say of the same tokens.

  Args:
    log_probs_MN: log-probability of each of N tokens under each of M models.
    weights_M: share of each model, adding up to 1.

  Returns:
    log Σ weight · probability, [N].
  """
  highest_N = log_probs_MN.max(axis=0)
  with np.errstate(invalid="ignore"):  # −∞ − −∞, where all are impossible
    ratios_MN = np.exp(log_probs_MN - highest_N)
  mixed_N = weights_M @ np.nan_to_num(ratios_MN)
  with np.errstate(divide="ignore"):
    return highest_N + np.log(mixed_N)


def fit_weights(
  log_probs_MN: np.ndarray, tolerance: float = 1e-6
) -> np.ndarray:
  """Find the weights under which the mixture's likelihood is highest.

  By expectation–maximisation (Dempster et al. 1977), from equal weights; the
  likelihood has one maximum.

  Args:
    log_probs_MN: as in `interpolate`, of a text that the models have not seen.
    tolerance: the largest change of a weight at which to stop.

  Returns:
    The share of each model, [M].
  """
  probs_MN = np.exp(log_probs_MN - log_probs_MN.max(axis=0))
  probs_MN = probs_MN[:, np.isfinite(probs_MN).all(axis=0)]
  weights_M = np.full(len(probs_MN), 1.0 / len(probs_MN))
  while True:
    shares_MN = weights_M[:, None] * probs_MN
    new_M = (shares_MN / shares_MN.sum(axis=0)).mean(axis=1)
    if np.abs(new_M - weights_M).max() < tolerance:
      return new_M
    weights_M = new_M
