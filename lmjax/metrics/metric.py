# SPDX-License-Identifier: Apache-2.0
"""Direction of metrics: whether a higher or a lower value is better."""

from collections.abc import Mapping
from typing import NamedTuple

# Metric name → whether higher is better. A name that ends in "*" stands for all
# names that start like it, such as the F1 of each label.
Directions = Mapping[str, bool]


class Metric(NamedTuple):
  """A metric by which checkpoints are selected.

  Attributes:
    name: as in a report.
    higher_is_better: its direction.
  """

  name: str
  higher_is_better: bool

  def score(self, value: float) -> float:
    """Return what selection minimizes; its own inverse.

    Progress, checkpoints and early stopping all compare scores, so that the
    sign of a metric is handled here and nowhere else.

    >>> Metric("accuracy", True).score(0.9)
    -0.9
    """
    return -value if self.higher_is_better else value


def find_metric(name: str, directions: Directions) -> Metric | None:
  """Return a metric by name; None if no direction is declared for it.

  >>> find_metric("f1.LOC", {"loss": False, "f1.*": True})
  Metric(name="f1.LOC", higher_is_better=True)
  """
  for declared, higher_is_better in directions.items():
    if declared == name or (
      declared.endswith("*") and name.startswith(declared[:-1])
    ):
      return Metric(name, higher_is_better)
  return None
