# SPDX-License-Identifier: Apache-2.0
"""Linear interpolation of language models (Jelinek & Mercer 1980).

Dimension letters:

    M  language models that are mixed
"""

import numpy as np

from lmjax.errors import UserError


def interpolate(log_probs_MN: np.ndarray, weights_M: np.ndarray) -> np.ndarray:
  """Mix what several models say of the same tokens.

  Args:
    log_probs_MN: log-probability of each of N tokens under each of M models.
    weights_M: weight of each model; they sum to 1.

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
  log_probs_MN: np.ndarray, tolerance: float = 1e-6, max_steps: int = 1000
) -> np.ndarray:
  """Find the weights under which the mixture's likelihood is highest.

  By expectation–maximisation (Dempster et al. 1977), from equal weights; the
  likelihood has one maximum.

  Args:
    log_probs_MN: as in `interpolate`, of a text that the models have not seen.
    tolerance: the largest change of a weight at which to stop.
    max_steps: how many steps to take at most.

  Returns:
    The weight of each model, [M].

  Raises:
    UserError: if no token is possible under any model.
  """
  log_probs_MN = np.asarray(log_probs_MN, np.float64)
  highest_N = log_probs_MN.max(axis=0)
  possible_N = np.isfinite(highest_N)
  if not possible_N.any():
    raise UserError(
      "no token of the text is possible under any of the models; give at least "
      "one that was smoothed, or trained on text of that kind."
    )
  probs_MN = np.exp(log_probs_MN[:, possible_N] - highest_N[possible_N])
  weights_M = np.full(len(probs_MN), 1.0 / len(probs_MN))
  for _ in range(max_steps):
    shares_MN = weights_M[:, None] * probs_MN
    before_M = weights_M
    weights_M = (shares_MN / shares_MN.sum(axis=0)).mean(axis=1)
    if np.abs(weights_M - before_M).max() < tolerance:
      break
  return weights_M
