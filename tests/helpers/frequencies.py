# SPDX-License-Identifier: Apache-2.0
"""Observed frequencies against probabilities, by Pearson's chi-square test."""

import numpy as np
from scipy.stats import chi2


def assert_frequencies(counts, probabilities, significance=1e-3):
  """Check that counts of outcomes are a plausible sample of probabilities.

  The samples of the tests are functions of a fixed seed, so a test that passes
  once passes always; a change of the sampled numbers alone makes it fail with
  probability `significance`.

  Args:
    counts: how often each outcome occurred.
    probabilities: of each outcome; an outcome of probability 0 must not occur.
    significance: probability of the rejection of a correct sampler.
  """
  counts, probabilities = np.asarray(counts), np.asarray(probabilities)
  possible = probabilities > 0
  assert not counts[~possible].any(), "an impossible outcome occurred"
  np.testing.assert_allclose(probabilities.sum(), 1.0, atol=1e-6)
  expected = counts.sum() * probabilities[possible]
  # The distribution of the statistic is only asymptotically chi-square; five
  # expected occurrences are the customary minimum (Cochran, 1954).
  assert expected.min() > 5, "too few samples for a chi-square test"
  statistic = np.sum((counts[possible] - expected) ** 2 / expected)
  limit = chi2.isf(significance, len(expected) - 1) if len(expected) > 1 else 0
  assert statistic <= limit + 1e-9, f"{statistic:.1f} > {limit:.1f}"
