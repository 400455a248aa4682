# SPDX-License-Identifier: Apache-2.0
"""What happens between steps: evaluation, checkpoints, previews.

A hook is called with the session after every step at which it is due. To add
one, write a class with `every` and `__call__`, and pass it to
`lmjax.training.loop.train(config, workdir, extra_hooks=[...])`:

    class PrintStep:
      every = 10

      def __call__(self, session):
        print(session.step)
"""

from typing import Protocol

import jax

from lmjax.experiment.experiment import Experiment
from lmjax.parallel import Strategy
from lmjax.training.evaluation import Evaluator
from lmjax.training.selection import CheckpointMetric
from lmjax.training.session import Session
from lmjax.training.writers import show


class Hook(Protocol):
  """An action between steps.

  Attributes:
    every: number of steps between calls; it is also called after the last
      step. 0 for never.
  """

  every: int

  def __call__(self, session: Session) -> None:
    """Perform the action."""


def is_due(every: int, step: int, last_step: int) -> bool:
  """Return whether an action is due after a step.

  >>> [step for step in range(1, 11) if is_due(4, step, last_step=10)]
  [4, 8, 10]
  """
  return every > 0 and (step % every == 0 or step == last_step)


class Evaluate:
  """Evaluate on the validation split, save the best, and stop early.

  Raises:
    UserError: if checkpoint.metric is not a metric of the task.
  """

  def __init__(self, experiment: Experiment, strategy: Strategy):
    train = experiment.config.train
    self.every, self._patience = train.eval_every, train.early_stopping_patience
    if self.every:
      self._evaluator = Evaluator(
        experiment.task,
        strategy,
        experiment.corpus.eval_batches("valid"),
        train.eval_batches,
      )
      # Checked now: a mistake must not show after hours of training.
      self._selection = CheckpointMetric(experiment, self._evaluator)

  def __call__(self, session: Session) -> None:
    """Evaluate, and save the best checkpoint so far."""
    report = self._evaluator(session.state, session.eval_params())
    report |= self._selection.from_predictions(session)
    session.writer.write(session.step, "valid", report)
    metric = self._selection.metric
    score = metric.score(report[metric.name])
    if session.progress.evaluated(session.step, score):
      session.save()
    if session.progress.exhausted(self._patience):
      session.finished = True
      best = metric.score(session.progress.best_score)
      show(
        f"stopped early: {self._patience} evaluations without improvement of "
        f"{metric.name}, best {best:.4f}"
      )


class Checkpoint:
  """Store a checkpoint."""

  def __init__(self, every: int):
    self.every = every

  def __call__(self, session: Session) -> None:
    """Save the state."""
    session.save()


class Preview:
  """Show in words what the model has learned."""

  def __init__(self, experiment: Experiment):
    self.every = experiment.config.train.preview_every
    if self.every:
      make_preview = experiment.spec.preview()
      self._show = make_preview(
        experiment.config,
        experiment.task,
        experiment.model,
        experiment.corpus,
        experiment.renderer,
      )

  def __call__(self, session: Session) -> None:
    """Write a preview into the metrics file."""
    if jax.process_count() > 1:
      return  # parameters may be sharded over machines
    params = jax.device_get(session.eval_params())
    text = self._show({"params": params, **session.state.collections})
    session.writer.write(session.step, "preview", {"text": text})
