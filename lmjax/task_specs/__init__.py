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
  require(config, "check_searchable", path, "cannot search texts")
  spec_of(config).check_searchable(config, path)


def require(
  config: ConfigDict, attribute: str, name: str, problem: str
) -> None:
  """Check that a run's task has an attribute.

  >>> require(config, "scorer", "runs/a", "cannot score text")
  UsageError: runs/a is a run of task=tagging, which cannot score text; give a
  run of task=language_modeling or …

  Args:
    config: the config of the run.
    attribute: an attribute of its spec.
    name: what the message calls the run: its run directory, or a flag.
    problem: what the task cannot do.

  Raises:
    UsageError: if it has not.
  """
  if not getattr(spec_of(config), attribute):
    raise UsageError(
      f"{name} is a run of task={config.task}, which {problem}; give a run of "
      f"task={tasks_with(attribute)}."
    )


def tasks_with(attribute: str) -> str:
  """List the tasks for which an attribute of the spec is set, for messages.

  >>> tasks_with("infiller")
  "fill_in_the_middle or masked_lm or span_corruption"
  """
  names = (n for n, spec in TASK_SPECS.items() if getattr(spec, attribute))
  return " or ".join(names)
