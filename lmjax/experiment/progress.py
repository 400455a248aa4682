# SPDX-License-Identifier: Apache-2.0
"""What the host needs besides the state to resume a run exactly."""

import dataclasses
from typing import Any

import numpy as np

from lmjax.metrics.sums import Figure, Sums, add_to, divide


@dataclasses.dataclass
class Progress:
  """Progress of a run; stored as JSON in checkpoints.

  Attributes:
    interval: sums of the steps since the last logged record.
    tokens: number of targets trained on so far.
    score: Metric.score of the validation metric at this step, lower is better;
      None if this step was not evaluated.
    best_score: the lowest score so far.
    best_step: the step of that evaluation.
    bad_evaluations: number of evaluations since then.
  """

  interval: dict[str, Figure] = dataclasses.field(default_factory=dict)
  tokens: float = 0.0
  score: float | None = None
  best_score: float | None = None
  best_step: int | None = None
  bad_evaluations: int = 0

  def add(self, sums: Sums) -> None:
    """Add the sums of a step to the interval."""
    add_to(self.interval, sums)
    self.tokens += float(sums.weight)

  def take_interval(self) -> dict[str, Figure]:
    """Return the means of the interval and start a new one."""
    means = divide(self.interval)
    self.interval = {}
    return means

  def record(self) -> dict[str, Any]:
    """Return all fields as JSON."""
    interval = {k: np.asarray(v).tolist() for k, v in self.interval.items()}
    return dataclasses.asdict(dataclasses.replace(self, interval=interval))

  def evaluated(self, step: int, score: float) -> bool:
    """Record an evaluation; return whether it is the best so far."""
    self.score = score
    better = self.best_score is None or score < self.best_score
    if better:
      self.best_score, self.best_step, self.bad_evaluations = score, step, 0
    else:
      self.bad_evaluations += 1
    return better

  def exhausted(self, patience: int) -> bool:
    """Return whether training stops early.

    Args:
      patience: number of evaluations without improvement; 0 for no limit.
    """
    return 0 < patience <= self.bad_evaluations
