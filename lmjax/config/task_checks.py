# SPDX-License-Identifier: Apache-2.0
"""Checks of the keys that a task must set consistently."""

from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.task_specs import TaskSpec, spec_of, tasks_with
from lmjax.task_specs.build import make_objective


def check_task(config: ConfigDict) -> None:
  """Check the keys of a config's task, before any data are read.

  Raises:
    UsageError: naming the keys, their values and what is accepted.
  """
  spec = spec_of(config)
  if config.distill.workdir:
    _check_distillation(config, spec)
  if not spec.has_records:
    _check_text(config, spec)
  if spec.checks:
    spec.checks(config)


def _check_distillation(config: ConfigDict, spec: TaskSpec) -> None:
  workdir = config.distill.workdir
  if not spec.distills:
    raise UsageError(
      f"distill.workdir={workdir} is not read by task={spec.name}; set it to "
      f"'' or use task={tasks_with('distills')}."
    )
  if config[spec.name].labels == "many":
    raise UsageError(
      f"distill.workdir={workdir} is not supported with {spec.name}.labels="
      "many; set one of them to its default."
    )


def _check_text(config: ConfigDict, spec: TaskSpec) -> None:
  if config.data.order == "stateful" and not spec.is_stateful:
    raise UsageError(
      f"data.order=stateful is not supported for task={spec.name}; choose "
      "stateless."
    )
  objective = make_objective(config)
  model = config.model
  if "positions" not in model or model.positions != "learned":
    return
  max_context = model.max_context or config.data.seq_len
  if objective.longest > max_context:
    raise UsageError(
      f"task={spec.name} makes rows of {objective.longest} tokens, more than "
      f"the {max_context} learned positions; set model.max_context="
      f"{objective.longest}."
    )
