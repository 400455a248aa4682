# SPDX-License-Identifier: Apache-2.0
"""Warm start: initialize a new run from the parameters of another run.

Parameters are matched by path, and the tokenizer is inherited with them, so
that token ids mean the same. Models of one family have equal paths whatever
their task: the layers of a language model become those of a text encoder under
a classification head.
"""

import functools
import math
import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies, first_tokenizer
from lmjax.errors import UserError
from lmjax.experiment.checkpoints import open_checkpoint
from lmjax.experiment.run_dir import RunDir
from lmjax.optim.averaging import map_averages
from lmjax.train_state import TrainState
from lmjax.tree import map_named, named_leaves
from lmjax.types import Array, PyTree


class SourceRun:
  """The run that a new run starts from.

  Attributes:
    path: its run directory.

  Args:
    workdir: its run directory.
    checkpoint: "best" by checkpoint.metric, "latest", or a step.

  Raises:
    UserError: if the directory contains no run.
  """

  def __init__(self, workdir: str, checkpoint: str):
    self._folder, self._checkpoint = RunDir(workdir), checkpoint
    self.path = self._folder.path
    self._model = self._folder.load_config().model.name

  @functools.cached_property
  def tokenizer(self) -> Tokenizer | Vocabularies:
    """Return its tokenizer, or its vocabularies."""
    return self._folder.load_tokenizer()

  @functools.cached_property
  def learned(self) -> tuple[int, dict[str, np.ndarray]]:
    """Read its parameters; their average, if the run computed one.

    Returns:
      The step of the checkpoint, and the parameters by path.

    Raises:
      UserError: if there is no such checkpoint.
    """
    folder = self._folder.checkpoints
    with open_checkpoint(folder, self._checkpoint) as (checkpoints, step):
      return step, named_leaves(checkpoints.restore_params(step))

  def offer(
    self, params: PyTree, pattern: str, model: str, tokenizer: Tokenizer
  ) -> "WarmStart":
    """Select the parameters that a new model takes from this run.

    Args:
      params: the shapes of the parameters of the new model.
      pattern: regular expression on the paths of parameters to take.
      model: value of `model.name` of the new run, for messages.
      tokenizer: that of the new model.

    Raises:
      UserError: if no path matches, or shapes differ.
    """
    step, theirs = self.learned
    ours = named_leaves(params)
    search = re.compile(pattern).search
    shared = [name for name in ours if name in theirs and search(name)]
    if not shared:
      raise UserError(
        f"init.workdir={self.path} of model.name={self._model} has no "
        f"parameters for model.name={model} that match init.parameters="
        f"{pattern}: it has {', '.join(theirs) or 'no parameters'}, and this "
        f"run has {', '.join(ours) or 'none'}."
      )
    params = {}
    for name in shared:
      value, wanted = theirs[name], ours[name].shape
      if self._is_table(value.shape, wanted, tokenizer):
        # Special tokens of a task come last; those of the new task keep their
        # initial values.
        value = value[: tokenizer.base_vocab_size]
      elif value.shape != wanted:
        raise UserError(
          f"{name} has shape {list(value.shape)} in init.workdir={self.path} "
          f"and {list(wanted)} in this run; make the models' sizes equal, or "
          "exclude it by init.parameters."
        )
      params[name] = value
    taken = sum(value.size for value in params.values())
    report = dict(
      workdir=str(self.path),
      step=step,
      taken=shared,
      new=[name for name in ours if name not in params],
      left=[name for name in theirs if name not in params],
      fraction=taken / sum(math.prod(leaf.shape) for leaf in ours.values()),
    )
    return WarmStart(params, report)

  def _is_table(
    self, theirs: tuple[int, ...], ours: tuple[int, ...], tokenizer: Tokenizer
  ) -> bool:
    """Return whether a shape is that of a table with one row per token.

    Only then do the shapes differ although the vocabularies agree: tasks add
    different special tokens to the same tokenizer.

    Args:
      theirs: shape in the source run.
      ours: shape in the new run.
      tokenizer: that of the new run.
    """
    known = first_tokenizer(self.tokenizer)
    if tokenizer.special_tokens == known.special_tokens or not (
      theirs and ours
    ):
      return False
    sizes = (known.vocab_size, tokenizer.vocab_size)
    return (theirs[0], ours[0]) == sizes and theirs[1:] == ours[1:]


class WarmStart(NamedTuple):
  """The parameters that a new run takes from its source run.

  Attributes:
    params: arrays by path. A table with one row per token has no rows for
      special tokens if those of the runs differ.
    report: "workdir" and "step" of the source run; the paths that were "taken",
      that are "new" in this run, and that were "left" in the source run; the
      "fraction" of this run's parameters that were taken.
  """

  params: dict[str, np.ndarray]
  report: dict[str, Any]

  def put_in(self, state: TrainState) -> TrainState:
    """Return a state with the taken parameters.

    They also replace averages of the parameters, which would otherwise still
    contain the random initial values.
    """

    def write(name: str, leaf: Array) -> Array:
      if name not in self.params:
        return leaf
      value = jnp.array(self.params[name], leaf.dtype)
      whole = value.shape == leaf.shape
      return value if whole else leaf.at[: len(value)].set(value)

    def put(params: PyTree) -> PyTree:
      return map_named(write, params)

    return state.replace(
      params=put(state.params), opt_state=map_averages(put, state.opt_state)
    )


def describe(report: dict[str, Any]) -> str:
  """Return the lines that report a warm start; see `WarmStart.report`."""
  lines = [
    f"started from step {report['step']:,} of {report['workdir']}: "
    f"{report['fraction']:.1%} of the parameters"
  ]
  kinds = dict(taken="taken", new="new in this run", left="not taken")
  lines += [
    f"  {words}: {', '.join(report[key])}"
    for key, words in kinds.items()
    if report[key]
  ]
  return "\n".join(lines)
