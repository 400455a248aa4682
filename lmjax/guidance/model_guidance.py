# SPDX-License-Identifier: Apache-2.0
"""Runs that guide the generation of another run."""

import functools
from collections.abc import Sequence
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp

from lmjax.data.tokenizers import BOS, EOS, PAD, Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.decoding.filters import Classifier, Expert
from lmjax.errors import UsageError
from lmjax.generation.generator import Request, bucket, bucket_rows, read_last
from lmjax.run import Run
from lmjax.task_specs import tasks_with
from lmjax.tasks.classification import Classification
from lmjax.types import Array, PyTree

_LEAST = 1e-30  # probability that a classifier gives to any class


class ExpertRun:
  """A run of language modeling whose model adds its log-probabilities.

  Args:
    workdir: the run directory.
    tokenizer: what the texts are written in.

  Raises:
    UserError: if the folder holds no run.
    UsageError: if the run is of another task or another tokenizer.
  """

  def __init__(self, workdir: str | Path, tokenizer: Tokenizer):
    self._run = Run(workdir)
    self._path = self._run.experiment.folder.path
    spec = self._run.experiment.spec
    if not spec.is_auxiliary:
      raise UsageError(
        f"{self._path} is a run of task={spec.name}, which cannot be an "
        f"expert; give a run of task={tasks_with('is_auxiliary')}."
      )
    _check_same(self._path, self._run.tokenizer, tokenizer)
    self._laid_out = functools.lru_cache(maxsize=4)(self._lay_out)

  def __call__(self, requests: Sequence[Request], weight: float) -> Expert:
    """Make the filter for texts that are drawn together.

    Raises:
      UsageError: if one of them may become longer than the model's context.
    """
    model, variables, step = self._laid_out(bucket_rows(len(requests)))
    longest = max(len(each.tokens) + each.num_tokens for each in requests)
    if model.max_context is not None and longest > model.max_context:
      raise UsageError(
        f"prompt and num_tokens make {longest} tokens and the context of "
        f"{self._path} holds {model.max_context}; ask for fewer."
      )
    return Expert(
      variables,
      jnp.float32(weight),
      step,
      model.initial_carry,
      bucket(max(each.num_tokens for each in requests)),
      model.max_context,
    )

  def _lay_out(self, rows: int) -> tuple[nn.Module, PyTree, functools.partial]:
    model = self._run.experiment.model
    model, variables = model.for_decoding(self._run.variables, rows)
    return model, variables, functools.partial(read_last, model)


class ClassifierRun:
  """A run of classification that says of which class a text is.

  Args:
    workdir: the run directory.
    label: the class that texts shall be of.
    tokenizer: what the texts are written in.
    weight: how much it counts.
    num_candidates: how many of the most likely tokens it is asked of.

  Raises:
    UserError: if the folder holds no run.
    UsageError: if the run is of another task or another tokenizer, or has no
      such class.
  """

  def __init__(
    self,
    workdir: str | Path,
    label: str,
    tokenizer: Tokenizer,
    weight: float,
    num_candidates: int,
  ):
    run = Run(workdir)
    experiment, path = run.experiment, run.experiment.folder.path
    if not experiment.spec.distills:
      raise UsageError(
        f"{path} is a run of task={experiment.spec.name}, which has no "
        f"classes; give a run of task={tasks_with('distills')}."
      )
    _check_same(path, run.tokenizer, tokenizer)
    names = experiment.task.labels
    if label not in names:
      raise UsageError(
        f"classifier_label={label} is no class of {path}; choose one of "
        f"{', '.join(names)}."
      )
    self._weight, self._num_candidates = weight, num_candidates
    marks = range(tokenizer.base_vocab_size, tokenizer.vocab_size)
    self._unread = (PAD, BOS, EOS, *marks)
    self._variables, self._window = (
      run.variables,
      experiment.config.data.seq_len,
    )
    self._log_prob = functools.partial(
      _log_prob, experiment.task, names.index(label)
    )

  def __call__(self, requests: Sequence[Request]) -> Classifier:
    """Make the filter for texts that are drawn together."""
    longest = max(len(each.tokens) + each.num_tokens for each in requests)
    return Classifier(
      self._variables,
      jnp.float32(self._weight),
      self._log_prob,
      self._num_candidates,
      min(self._window, bucket(longest)),
      self._unread,
    )


def _log_prob(
  task: Classification,
  label: int,
  variables: PyTree,
  tokens_NW: Array,
  mask_NW: Array,
) -> Array:
  """Return the log-probability of a class, in nats, [N]."""
  batch = dict(inputs=tokens_NW, mask=mask_NW)
  probabilities_NC = task.predict(variables, batch)["probabilities"]
  return jnp.log(jnp.maximum(probabilities_NC[:, label], _LEAST))


def _check_same(
  path: Path, theirs: Tokenizer | Vocabularies, ours: Tokenizer
) -> None:
  """See that two runs mean the same by a token.

  Raises:
    UsageError: if they do not.
  """
  if isinstance(theirs, Vocabularies):  # of a classifier, which reads no marks
    same = theirs.tokenizers["text"].fingerprint
    if same == ours.with_special_tokens(()).fingerprint:
      return
  elif theirs.fingerprint == ours.fingerprint:
    return
  raise UsageError(
    f"{path} has another tokenizer than the run that draws; train it with "
    "init.workdir set to that run, whose tokenizer it then takes."
  )
