# SPDX-License-Identifier: Apache-2.0
"""A new run that begins with what another one has learned.

Parameters are taken by path, and the tokenizer with them, so that tokens mean
the same. Models of one family have the same paths whatever their task is: the
layers of a language model become those of an encoder under a head.
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
  """A run that another one begins with.

  Attributes:
    path: its folder.

  Args:
    workdir: its folder.
    checkpoint: "best" by validation loss, "latest", or a step.

  Raises:
    UserError: if the folder holds no run.
  """

  def __init__(self, workdir: str, checkpoint: str):
    self._folder, self._checkpoint = RunDir(workdir), checkpoint
    self.path = self._folder.path
    self._model = self._folder.load_config().model.name

  @functools.cached_property
  def tokenizer(self) -> Tokenizer | Vocabularies:
    """Return what its texts are written in."""
    return self._folder.load_tokenizer()

  @functools.cached_property
  def learned(self) -> tuple[int, dict[str, np.ndarray]]:
    """Read its parameters by path, averaged if it kept an average.

    Returns:
      The step that they are of, and the parameters.

    Raises:
      UserError: if there is no such checkpoint.
    """
    folder = self._folder.checkpoints
    with open_checkpoint(folder, self._checkpoint) as (checkpoints, step):
      return step, named_leaves(checkpoints.restore_params(step))

  def offer(
    self, params: PyTree, pattern: str, model: str, tokenizer: Tokenizer
  ) -> "WarmStart":
    """Choose what a model takes.

    Args:
      params: the shapes of its parameters.
      pattern: regular expression on the paths of those that may be taken.
      model: the name of its kind.
      tokenizer: what its texts are written in.

    Raises:
      UserError: if nothing is there to take, or shapes differ.
    """
    step, theirs = self.learned
    ours = named_leaves(params)
    search = re.compile(pattern).search
    shared = [name for name in ours if name in theirs and search(name)]
    if not shared:
      raise UserError(
        f"the model.name={self._model} in init.workdir={self.path} has nothing "
        f"for this model.name={model} under init.parameters={pattern}: it has "
        f"{', '.join(theirs) or 'no parameters'}, and here are "
        f"{', '.join(ours) or 'none'}."
      )
    params = {}
    for name in shared:
      value, wanted = theirs[name], ours[name].shape
      if self._is_table(value.shape, wanted, tokenizer):
        value = value[: tokenizer.base_vocab_size]
      elif value.shape != wanted:
        raise UserError(
          f"{name} has shape {list(value.shape)} in init.workdir={self.path} "
          f"and {list(wanted)} here; make the models' sizes equal, or leave it "
          "out by init.parameters."
        )
      params[name] = value
    taken = sum(value.size for value in params.values())
    report = dict(
      workdir=str(self.path),
      step=step,
      taken=shared,
      new=[name for name in ours if name not in params],
      left=[name for name in theirs if name not in params],
      share=taken / sum(math.prod(leaf.shape) for leaf in ours.values()),
    )
    return WarmStart(params, report)

  def _is_table(
    self, theirs: tuple[int, ...], ours: tuple[int, ...], tokenizer: Tokenizer
  ) -> bool:
    """Say whether it has a row a token, and marks alone differ."""
    known = first_tokenizer(self.tokenizer)
    if tokenizer.special_tokens == known.special_tokens or not (
      theirs and ours
    ):
      return False
    sizes = (known.vocab_size, tokenizer.vocab_size)
    return (theirs[0], ours[0]) == sizes and theirs[1:] == ours[1:]


class WarmStart(NamedTuple):
  """What a run takes of another.

  Attributes:
    params: by path; of a table whose marks differ, the rows of the others.
    report: "workdir" and "step" of the other, the paths that were "taken", are
      "new" here and were "left" there, and the "share" of the numbers here that
      were taken.
  """

  params: dict[str, np.ndarray]
  report: dict[str, Any]

  def put_in(self, state: TrainState) -> TrainState:
    """Write them over the parameters of a state, and of an average of them."""

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
  """Write what `WarmStart.report` says, in lines."""
  lines = [
    f"begun with step {report['step']:,} of {report['workdir']}: "
    f"{report['share']:.1%} of the parameters"
  ]
  kinds = dict(taken="taken", new="new here", left="left there")
  lines += [
    f"  {words}: {', '.join(report[key])}"
    for key, words in kinds.items()
    if report[key]
  ]
  return "\n".join(lines)
