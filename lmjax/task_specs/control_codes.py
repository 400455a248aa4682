# SPDX-License-Identifier: Apache-2.0
"""Language modeling with control codes (CTRL, Keskar et al. 2019)."""

from typing import Any

from lmjax.task_specs import language_modeling, loaders
from lmjax.task_specs.key import Key
from lmjax.task_specs.task_spec import TaskSpec


def _objective() -> Any:
  from lmjax.data.text.objectives import control_codes

  return control_codes.build


SPEC = TaskSpec(
  name="control_codes",
  model_kind="infiller",
  build=language_modeling.build,
  preview=loaders.continuation_preview,
  keys=dict(
    # Where the control code of a document comes from: file | folder | the name
    # of a field.
    objective=dict(control_code_from=Key("folder")),
    preview=dict(control_code=Key("")),
  ),
  examples=loaders.rewritten_sequences,
  objective=_objective,
  sampler=loaders.text_sampler,
  scorer=loaders.text_scorer,
  is_auxiliary=True,
)
