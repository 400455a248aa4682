# SPDX-License-Identifier: Apache-2.0
"""Runs that guide the generation of another run.

Dimension letters:

    W  tokens of the context that the classifier reads
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp

from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.decoding.logits_processors import Classifier, Expert
from lmjax.errors import UsageError
from lmjax.generation.generator import ModelBinder
from lmjax.generation.requests import Request, bucket, bucket_rows
from lmjax.run import Run
from lmjax.task_specs import require
from lmjax.tasks.classification import Classification
from lmjax.types import Array, PyTree

# Smallest probability of a class, so that its logarithm is finite in float32.
_MIN_PROBABILITY = 1e-30


class ExpertRun:
  """A language modeling run whose log-probabilities are added.

  Args:
    workdir: the run directory.
    tokenizer: tokenizer of the generated text.

  Raises:
    UserError: if the directory contains no run.
    UsageError: if the run is of another task or has another tokenizer.
  """

  def __init__(self, workdir: str | Path, tokenizer: Tokenizer):
    self._run = Run(workdir)
    self._path = self._run.experiment.folder.path
    config = self._run.experiment.config
    require(config, "is_auxiliary", str(self._path), "cannot be an expert")
    _check_tokenizers(self._path, self._run.tokenizer, tokenizer)
    self._binder = ModelBinder(self._run.experiment.model, caches_layout=True)

  def __call__(self, requests: Sequence[Request], weight: float) -> Expert:
    """Return the logits processor for a batch of requests.

    Raises:
      UsageError: if a text may become longer than the model's context.
    """
    max_context = self._binder.max_context
    longest = max(len(each.tokens) + each.num_tokens for each in requests)
    if max_context is not None and longest > max_context:
      raise UsageError(
        f"the prompt and num_tokens add up to {longest} tokens, but the "
        f"context of {self._path} holds {max_context}; reduce num_tokens."
      )
    rows = bucket_rows(len(requests))
    return Expert(
      self._binder.bind(self._run.variables, rows),
      jnp.float32(weight),
      bucket(max(each.num_tokens for each in requests)),
    )


class ClassifierRun:
  """A classification run that favors texts of one class.

  Args:
    workdir: the run directory.
    label: the class that texts should have.
    tokenizer: tokenizer of the generated text.
    weight: weight of the log-probability of the class.
    num_candidates: number of most likely tokens that it is applied to.

  Raises:
    UserError: if the directory contains no run.
    UsageError: if the run is of another task, has another tokenizer, or has no
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
    require(experiment.config, "distills", str(path), "has no classes")
    _check_tokenizers(path, run.tokenizer, tokenizer)
    labels = experiment.task.labels
    if label not in labels:
      raise UsageError(
        f"classifier_label={label} is not a class of {path}; choose one of "
        f"{', '.join(labels)}."
      )
    self._weight, self._num_candidates = weight, num_candidates
    # Records contain no special tokens, so the classifier has not seen them.
    special = range(tokenizer.base_vocab_size, tokenizer.vocab_size)
    self._skipped = (
      tokenizer.pad_id,
      tokenizer.bos_id,
      tokenizer.eos_id,
      *special,
    )
    self._variables = run.variables
    self._seq_len = experiment.config.data.seq_len
    self._log_prob = functools.partial(
      _log_prob, experiment.task, labels.index(label)
    )

  def __call__(self, requests: Sequence[Request]) -> Classifier:
    """Return the logits processor for a batch of requests."""
    longest = max(len(each.tokens) + each.num_tokens for each in requests)
    return Classifier(
      self._variables,
      jnp.float32(self._weight),
      self._log_prob,
      self._num_candidates,
      min(self._seq_len, bucket(longest)),
      self._skipped,
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
  probabilities_NY = task.predict(variables, batch)["probabilities"]
  return jnp.log(jnp.maximum(probabilities_NY[:, label], _MIN_PROBABILITY))


def _check_tokenizers(
  path: Path, theirs: Tokenizer | Vocabularies, ours: Tokenizer
) -> None:
  """Check that two runs have the same tokens.

  Raises:
    UsageError: if they do not.
  """
  if isinstance(theirs, Vocabularies):  # a classifier has no special tokens
    same = theirs.tokenizers["text"].fingerprint
    if same == ours.with_special_tokens(()).fingerprint:
      return
  elif theirs.fingerprint == ours.fingerprint:
    return
  raise UsageError(
    f"{path} has another tokenizer than the run that generates; train it with "
    "init.workdir set to that run, which shares its tokenizer."
  )
