# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import scipy.stats

from lmjax.metrics.correlation import mean_ranks, spearman


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_and_their_correlation_are_scipys(ties):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 40))
  if ties:
    x, y = x.round(), y.round()
  np.testing.assert_array_equal(mean_ranks(x), scipy.stats.rankdata(x))
  expected = scipy.stats.spearmanr(x, y).statistic
  np.testing.assert_allclose(spearman(x, y), expected, rtol=1e-12)


def test_what_never_changes_has_no_correlation():
  assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))
