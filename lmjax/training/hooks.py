# SPDX-License-Identifier: Apache-2.0
"""What happens beside the steps: records, evaluations, checkpoints, samples.

A hook is called with the session after every step for which it is due. To add
one, write a class with `every` and `__call__` and hand it to `train`.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import jax
import tqdm

from lmjax.errors import UserError
from lmjax.experiment.checkpoints import Checkpoints
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.progress import Progress
from lmjax.metrics.sums import Sums
from lmjax.optim.optimizers import averaged_params, plateau_scale
from lmjax.parallel import Strategy
from lmjax.train_state import TrainState
from lmjax.training.evaluation import Evaluator
from lmjax.training.previews import SAMPLES
from lmjax.training.writers import MetricWriter, show


@dataclasses.dataclass
class Session:
  """A run while it is going on.

  Attributes:
    experiment: what is being run.
    strategy: where.
    state: the state after `step` updates.
    step: number of updates made.
    progress: what else a checkpoint must hold.
    checkpoints: where states are stored.
    writer: where numbers go.
    finished: set by a hook to end the run early.
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
    """Store a checkpoint, if this step has none yet."""
    state = self.strategy.collect(self.state)
    self.checkpoints.save(self.step, state, self.progress)

  def eval_params(self):
    """Return the parameters to judge: the average if one is kept."""
    average = averaged_params(self.state.opt_state)
    return self.state.params if average is None else average


class Hook(Protocol):
  """Something to do every so many steps, and after the last; 0 for never."""

  every: int

  def __call__(self, session: Session) -> None:
    """Do it."""


def is_due(every: int, step: int, last_step: int) -> bool:
  """Decide whether something that happens every so often happens now."""
  return every > 0 and (step % every == 0 or step == last_step)


class Evaluate:
  """Judge on the validation split; keep the best; stop when none is better.

  Raises:
    UserError: if checkpoint.metric names no figure of the task's report.
  """

  def __init__(self, experiment: Experiment, strategy: Strategy):
    train = experiment.config.train
    self.every, self._patience = train.eval_every, train.early_stopping_patience
    self._best_by = experiment.config.checkpoint.metric
    if self.every:
      self._evaluator = Evaluator(
        experiment.task,
        strategy,
        experiment.corpus.eval_batches("valid"),
        train.eval_batches,
      )
      if self._best_by != "loss":  # known before hours have been spent
        self._check(self._evaluator.figures(experiment.make_state))

  def __call__(self, session: Session) -> None:
    """Evaluate, and save what is the best so far."""
    report = self._evaluator(session.state, session.eval_params())
    session.writer.write(session.step, "valid", report)
    figure = report[self._best_by]
    sign = 1 if lower_is_better(self._best_by) else -1
    if session.progress.evaluated(session.step, sign * figure):
      session.save()
    if session.progress.exhausted(self._patience):
      session.finished = True
      show(
        f"stopped early: {self._patience} evaluations without a better "
        f"{self._best_by} than {sign * session.progress.best_loss:.4f}"
      )

  def _check(self, figures: Sequence[str]) -> None:
    if self._best_by not in figures:
      raise UserError(
        f"checkpoint.metric={self._best_by} is no figure of this task; choose "
        f"one of {', '.join(figures)}."
      )


def lower_is_better(figure: str) -> bool:
  """Say by its name whether a figure is the better the lower it is."""
  return figure.startswith("bits_per_") or figure.endswith(
    ("loss", "perplexity", "error", "error_rate")
  )


class Checkpoint:
  """Store the state."""

  def __init__(self, every: int):
    self.every = every

  def __call__(self, session: Session) -> None:
    """Save a checkpoint."""
    session.save()


class Sample:
  """Show what the model has learned, in words."""

  def __init__(self, experiment: Experiment):
    config = experiment.config
    self.every = config.train.preview_every
    if self.every:
      self._show = SAMPLES[config.task](experiment)

  def __call__(self, session: Session) -> None:
    """Write a sample into the records."""
    if jax.process_count() > 1:
      return  # parameters may be spread over machines
    params = jax.device_get(session.eval_params())
    text = self._show({"params": params, **session.state.collections})
    session.writer.write(session.step, "sample", {"text": text})


class Monitor:
  """Read the sums of each step once the next is under way.

  Waiting for a step's numbers would leave the devices idle while the host
  prepares the next, so they are read one step late, and before anything that
  looks at the state.

  Args:
    experiment: gives the schedule of records and the task's report.
    session: the run.
    throughput: (tokens per second) → further numbers for a record.
    learning_rate: step → learning rate.
  """

  def __init__(
    self,
    experiment: Experiment,
    session: Session,
    throughput: Callable[[float], dict[str, float]],
    learning_rate: Callable[[int], float],
  ):
    train = experiment.config.train
    self._log_every, self._num_steps = train.log_every, train.num_steps
    self._task, self._session = experiment.task, session
    self._throughput, self._learning_rate = throughput, learning_rate
    self._tokens_a_step = experiment.corpus.tokens_per_batch
    self._pending: tuple[int, Sums] | None = None
    self._clock, self._timed_tokens = None, 0
    self._bar = tqdm.tqdm(
      total=self._num_steps,
      initial=session.step,
      unit="step",
      disable=True if jax.process_index() else None,  # None: off a terminal
      dynamic_ncols=True,
    )

  def push(self, step: int, sums: Sums) -> None:
    """Take a step's sums, and read those of the step before."""
    self.flush()
    self._pending = (step, sums)

  def flush(self) -> None:
    """Read what is pending.

    Raises:
      UserError: if a gradient is not finite. A loss may be infinite without:
        that of a model that counts, where it holds a text for impossible.
    """
    if self._pending is None:
      return
    step, sums = self._pending
    self._pending = None
    sums = jax.device_get(sums)
    self._check_finite(step, sums)
    progress = self._session.progress
    progress.add(sums)
    progress.valid_loss = None
    self._timed_tokens += self._tokens_a_step
    if self._clock is None:  # the first step compiles; the clock starts after
      self._clock, self._timed_tokens = time.perf_counter(), 0
    if is_due(self._log_every, step, self._num_steps):
      self._record(step)
    self._bar.update()

  def _check_finite(self, step: int, sums: Sums) -> None:
    if math.isfinite(sums.metrics["grad_norm"]):
      return
    what = "the gradient" if math.isfinite(sums.loss) else "the loss"
    good = self._session.checkpoints.latest()
    kept = f"checkpoint {good}" if good is not None else "no checkpoint yet"
    raise UserError(
      f"{what} is not finite at step {step} (batch {step - 1}); the last good "
      f"state is {kept} in {self._session.checkpoints.folder}: lower "
      "optim.learning_rate or set optim.clip_norm, in a new --workdir."
    )

  def _record(self, step: int) -> None:
    seconds = time.perf_counter() - self._clock
    means = self._session.progress.take_interval()
    record = self._task.report(means)
    scale = plateau_scale(self._session.state.opt_state)
    record["learning_rate"] = float(self._learning_rate(step - 1)) * scale
    record["tokens"] = self._session.progress.tokens
    if self._timed_tokens:
      record.update(self._throughput(self._timed_tokens / seconds))
      self._bar.set_postfix_str(
        f"loss {record['loss']:.3f}, "
        f"{record['tokens_per_second']:,.0f} tokens/s",
        refresh=False,
      )
    self._session.writer.write(step, "train", record)
    self._clock, self._timed_tokens = time.perf_counter(), 0

  @contextmanager
  def paused(self) -> Iterator[None]:
    """Keep what happens inside out of the throughput."""
    began = time.perf_counter()
    yield
    if self._clock is not None:
      self._clock += time.perf_counter() - began

  def close(self) -> None:
    """Take the bar away."""
    self._bar.close()
