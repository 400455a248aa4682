# SPDX-License-Identifier: Apache-2.0
"""A run in progress, as hooks see it."""

import dataclasses

from lmjax.experiment.checkpoints import Checkpoints
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.progress import Progress
from lmjax.optim.averaging import averaged_params
from lmjax.parallel import Strategy
from lmjax.train_state import TrainState
from lmjax.training.writers import MetricWriter
from lmjax.types import PyTree


@dataclasses.dataclass
class Session:
  """A run in progress.

  Attributes:
    experiment: the objects of the config.
    strategy: where the step runs.
    state: the state after `step` updates.
    step: number of updates so far.
    progress: what a checkpoint stores besides the state.
    checkpoints: where states are stored.
    writer: where metrics are written.
    finished: set by a hook to stop training early.
  """

  experiment: Experiment
  strategy: Strategy
  state: TrainState
  step: int
  progress: Progress
  checkpoints: Checkpoints
  writer: MetricWriter
  finished: bool = False

  def save(self) -> None:
    """Store a checkpoint, unless this step has one already."""
    state = self.strategy.gather(self.state)
    self.checkpoints.save(self.step, state, self.progress)

  def eval_params(self) -> PyTree:
    """Return the parameters to evaluate: their average, if there is one."""
    average = averaged_params(self.state.opt_state)
    return self.state.params if average is None else average

  def eval_variables(self) -> PyTree:
    """Return the variables to evaluate, on the host."""
    state = self.strategy.gather(self.state)
    average = averaged_params(state.opt_state)
    params = state.params if average is None else average
    return {"params": params, **state.collections}
