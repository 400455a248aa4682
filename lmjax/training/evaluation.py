# SPDX-License-Identifier: Apache-2.0
"""Evaluation on a split: sums over all its batches, divided once."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from lmjax.data.loader import Batches, load
from lmjax.data.text.batching import EVAL_ORDERS
from lmjax.experiment.experiment import Experiment
from lmjax.metrics.sums import add_to, divide
from lmjax.models.neural_cache import CacheOptions
from lmjax.parallel import Strategy
from lmjax.parallel.jit import JitStrategy
from lmjax.tasks.task import Task
from lmjax.train_state import TrainState
from lmjax.training.step import eval_step
from lmjax.types import PyTree


class Evaluator:
  """Evaluate parameters on the same batches again and again.

  Args:
    task: turns batches into sums.
    strategy: where it runs.
    batches: the batches of the split.
    num_batches: how many of them; 0 for all.
  """

  def __init__(
    self, task: Task, strategy: Strategy, batches: Batches, num_batches: int = 0
  ):
    self._task, self._strategy, self._batches = task, strategy, batches
    self._num_batches = min(num_batches or len(batches), len(batches))
    self._step = None

  def __call__(
    self, state: TrainState, params: PyTree | None = None
  ) -> dict[str, float]:
    """Evaluate, with an empty memory at the start.

    Args:
      state: placed on the strategy's devices; only read.
      params: parameters to use instead of the state's.

    Returns:
      The task's report.
    """
    state = self._strategy.device_put(
      state.replace(
        params=state.params if params is None else params,
        opt_state=(),
        carry=self._task.initial_carry(self._batches.batch_size),
      )
    )
    if self._step is None:
      step = functools.partial(eval_step, task=self._task)
      self._step = self._strategy.compile_step(step, state, donate=False)
    total, pending = {}, None
    for batch in load(self._batches, 0, self._num_batches):
      state, sums = self._step(state, self._strategy.shard_batch(batch))
      if pending is not None:  # read while the next batch is under way
        add_to(total, pending)
      pending = sums
    add_to(total, pending)
    return self._task.report(divide(total))

  def metric_names(self, make_state: Callable[[], TrainState]) -> list[str]:
    """Return the names of the reported metrics, without evaluating anything.

    Args:
      make_state: returns a state like those of the calls.
    """
    state = jax.eval_shape(make_state)
    batch = jax.eval_shape(lambda: dict(self._batches[0]))
    # A process has its own rows of a batch, but the carry is that of all rows.
    rows = len(jax.tree.leaves(batch)[0])
    carry = jax.eval_shape(lambda: self._task.initial_carry(rows))
    model_state = state.model_state._replace(carry=carry)
    loss = functools.partial(self._task.loss, rngs={}, train=False)
    shapes = jax.eval_shape(loss, state.params, model_state, batch).sums
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes)
    report = self._task.report(ones.means())
    return [k for k, v in report.items() if isinstance(v, float)]


def evaluate_variables(
  task: Task, batches: Batches, variables: PyTree, step: int
) -> dict[str, float]:
  """Evaluate the variables of a model once, on the first local device.

  Args:
    task: turns batches into sums.
    batches: the batches of the split.
    variables: the parameters and other collections of the task's model.
    step: the training step that they are of.
  """
  collections = dict(variables)
  params = collections.pop("params")
  key = jax.random.key(0)  # unused: evaluation is deterministic
  state = TrainState(step, params, (), collections, None, key)
  strategy = JitStrategy(jax.devices()[:1], dict(data=1))
  return Evaluator(task, strategy, batches)(state)


def eval_batches(
  experiment: Experiment, split: str, cache: CacheOptions | None = None
) -> tuple[Task, Batches]:
  """Return the task of an experiment and its batches of a split.

  Args:
    experiment: the experiment.
    split: "train", "valid" or "test".
    cache: a neural cache to add to the model, which is kept between sequences
      whatever `data.order` is; None for none.
  """
  experiment.check_corpus()
  task, corpus = experiment.task, experiment.corpus
  if not cache:
    return task, corpus.eval_batches(split)
  model = cache.wrap(task.model, carries_model=task.stateful)
  task = dataclasses.replace(task, model=model, stateful=True)
  return task, corpus.rows(EVAL_ORDERS["stateful"], split)
