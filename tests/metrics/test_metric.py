# SPDX-License-Identifier: Apache-2.0
from lmjax.metrics.metric import Metric, find_metric


def test_scores_are_minimized_and_invert_themselves():
  high, low = Metric("accuracy", True), Metric("loss", False)
  assert high.score(0.9) < high.score(0.8) and low.score(1.0) < low.score(2.0)
  for metric in (high, low):
    assert metric.score(metric.score(0.25)) == 0.25


def test_a_star_stands_for_names_that_start_alike():
  directions = {"loss": False, "f1.*": True}
  assert find_metric("f1.LOC", directions) == Metric("f1.LOC", True)
  assert find_metric("loss", directions) == Metric("loss", False)
  assert find_metric("loss.x", directions) is None
