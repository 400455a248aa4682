# SPDX-License-Identifier: Apache-2.0
"""Metrics of the training steps, read without stalling the devices."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import tqdm

from lmjax.errors import UserError
from lmjax.experiment.experiment import Experiment
from lmjax.metrics.sums import Sums
from lmjax.optim.transforms import plateau_scale
from lmjax.training.hooks import is_due
from lmjax.training.session import Session


class Monitor:
  """Read the sums of each step after the next step was dispatched.

  Waiting for the numbers of a step would leave the devices idle while the host
  prepares the next one. They are read one step late, and before anything that
  uses the state.

  Args:
    experiment: has the logging interval, and the task that reports metrics.
    session: the run.
    throughput: tokens per second → further metrics of a record.
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
    self._tokens_per_step = experiment.corpus.tokens_per_batch
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
    """Store the sums of a step, and read those of the step before."""
    self.flush()
    self._pending = (step, sums)

  def flush(self) -> None:
    """Read the pending sums.

    Raises:
      UserError: if a gradient is not finite. An infinite loss with a finite
        gradient is no error: an n-gram model without smoothing assigns some
        texts probability 0.
    """
    if self._pending is None:
      return
    step, sums = self._pending
    self._pending = None
    sums = jax.device_get(sums)
    self._check_finite(step, sums)
    progress = self._session.progress
    progress.add(sums)
    progress.score = None
    self._timed_tokens += self._tokens_per_step
    if self._clock is None:  # do not time the compilation of the first step
      self._clock, self._timed_tokens = time.perf_counter(), 0
    if is_due(self._log_every, step, self._num_steps):
      self._record(step)
    self._bar.update()

  def _check_finite(self, step: int, sums: Sums) -> None:
    if math.isfinite(sums.metrics["grad_norm"]):
      return
    what = "the gradient" if math.isfinite(sums.loss) else "the loss"
    good = self._session.checkpoints.latest()
    stored = f"checkpoint {good}" if good is not None else "no checkpoint yet"
    raise UserError(
      f"{what} is not finite at step {step} (batch {step - 1}); the last good "
      f"state is {stored} in {self._session.checkpoints.folder}: lower "
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
    """Exclude the time of the block from the throughput."""
    started = time.perf_counter()
    yield
    if self._clock is not None:
      self._clock += time.perf_counter() - started

  def close(self) -> None:
    """Close the progress bar."""
    self._bar.close()
