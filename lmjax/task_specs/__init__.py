# SPDX-License-Identifier: Apache-2.0
"""Tasks by name; to add one, write its file and name its spec here."""

from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.task_specs import (
  classification,
  control_codes,
  fill_in_the_middle,
  language_modeling,
  masked_lm,
  matching,
  prefix_lm,
  seq2seq,
  span_corruption,
  tagging,
  word_vectors,
)
from lmjax.task_specs.task_spec import TaskSpec

TASK_SPECS: dict[str, TaskSpec] = {
  spec.name: spec
  for spec in (
    language_modeling.SPEC,
    prefix_lm.SPEC,
    fill_in_the_middle.SPEC,
    control_codes.SPEC,
    masked_lm.SPEC,
    span_corruption.SPEC,
    word_vectors.SKIP_GRAM,
    word_vectors.CBOW,
    word_vectors.GLOVE,
    classification.SPEC,
    tagging.SPEC,
    matching.SPEC,
    seq2seq.SPEC,
  )
}


def spec_of(config: ConfigDict) -> TaskSpec:
  """Return the spec of a config's task."""
  return TASK_SPECS[config.task]


def check_searchable(config: ConfigDict, path: str) -> None:
  """Check that the vectors that a run learned can be searched.

  Args:
    config: the config of the run.
    path: its run directory, for the message.

  Raises:
    UsageError: if they cannot.
  """
  spec = spec_of(config)
  if spec.check_searchable is None:
    raise UsageError(
      f"{path} is a run of task={spec.name}, which cannot search texts; give a "
      f"run of task={tasks_with('check_searchable')}."
    )
  spec.check_searchable(config, path)


def tasks_with(attribute: str) -> str:
  """List the tasks for which an attribute of the spec is set, for messages.

  >>> tasks_with("infiller")
  "fill_in_the_middle or masked_lm or span_corruption"
  """
  names = (n for n, spec in TASK_SPECS.items() if getattr(spec, attribute))
  return " or ".join(names)
