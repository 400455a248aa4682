# SPDX-License-Identifier: Apache-2.0
"""Objects of a config that depend on its task; see TaskSpec."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lmjax.task_specs import spec_of


def build_model(config: ConfigDict, vocab_size: int, **sizes: int) -> Any:
  """Build the model of a config, with the head of its task.

  Args:
    config: has the keys of the model and of its head.
    vocab_size: number of tokens.
    **sizes: other sizes of the vocabularies, such as the number of labels.
      Builders have small defaults for them, so that a config can be checked
      without data.

  Returns:
    A Flax module.

  Raises:
    UsageError: if settings do not fit together.
  """
  from lmjax.models import MODELS

  spec, build = spec_of(config), MODELS[config.model.name]
  if spec.head:
    return spec.head()(config, build(config, vocab_size), **sizes)
  return build(config, vocab_size, **sizes, **spec.model_options)


def make_objective(config: ConfigDict) -> Any:
  """Build what rewrites token sequences for the task of a config.

  Returns:
    An Objective; the identity if the task takes sequences as they are.

  Raises:
    UsageError: if a setting leaves no room for the text.
  """
  from lmjax.data.text.objectives.objective import Objective

  spec = spec_of(config)
  if spec.objective is None:
    return Objective(config.data.seq_len)
  return spec.objective()(config)


def open_corpus(
  config: ConfigDict,
  existing: Any,
  inherited: Any,
  cache_dir: Path,
  teacher: Callable[[], Any] | None = None,
) -> Any:
  """Open the data of a config.

  Args:
    config: a finalized config.
    existing: tokenizer or vocabularies of a run that resumes; None for a new
      run.
    inherited: those of the run that a new run starts from; None to train them.
    cache_dir: directory of encoded data.
    teacher: returns what another run predicts for the training records.

  Returns:
    A Corpus.
  """
  from lmjax.data.records.record_corpus import RecordCorpus
  from lmjax.data.text.text_corpus import TextCorpus

  spec = spec_of(config)
  if spec.has_records:
    build_schema = spec.schema()
    return RecordCorpus(
      config, build_schema, existing, inherited, cache_dir, teacher
    )
  objective, examples = make_objective(config), spec.examples()
  return TextCorpus(config, objective, examples, existing, inherited, cache_dir)
