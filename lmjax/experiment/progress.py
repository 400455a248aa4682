# SPDX-License-Identifier: Apache-2.0
"""What the host must remember beside the state, to go on exactly."""

import dataclasses
from typing import Any

import numpy as np

from lmjax.metrics.sums import Figure, Sums, add_to, divide


@dataclasses.dataclass
class Progress:
  """Facts about a run that are no arrays; stored as JSON in checkpoints.

  Attributes:
    interval: sums of the steps since the last record.
    tokens: targets trained on so far.
    valid_loss: the last evaluation's loss, if it was made at this step; where
      checkpoint.metric names what is the higher the better, minus that.
    best_loss: the lowest of all evaluations.
    best_step: the step of that evaluation.
    bad_evaluations: how many evaluations in a row did not lower it.
  """

  interval: dict[str, Figure] = dataclasses.field(default_factory=dict)
  tokens: float = 0.0
  valid_loss: float | None = None
  best_loss: float | None = None
  best_step: int | None = None
  bad_evaluations: int = 0

  def add(self, sums: Sums) -> None:
    """Add a step's sums to the window."""
    add_to(self.interval, sums)
    self.tokens += float(sums.weight)

  def take_interval(self) -> dict[str, Figure]:
    """Return the means of the window and begin a new one."""
    means = divide(self.interval)
    self.interval = {}
    return means

  def record(self) -> dict[str, Any]:
    """Return all fields as JSON has them."""
    interval = {k: np.asarray(v).tolist() for k, v in self.interval.items()}
    return dataclasses.asdict(dataclasses.replace(self, interval=interval))

  def evaluated(self, step: int, loss: float) -> bool:
    """Note an evaluation; true if it is the best so far."""
    self.valid_loss = loss
    better = self.best_loss is None or loss < self.best_loss
    if better:
      self.best_loss, self.best_step, self.bad_evaluations = loss, step, 0
    else:
      self.bad_evaluations += 1
    return better

  def exhausted(self, patience: int) -> bool:
    """Say whether too many evaluations went by without a better one."""
    return 0 < patience <= self.bad_evaluations
