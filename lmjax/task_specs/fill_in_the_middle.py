# SPDX-License-Identifier: Apache-2.0
"""Fill-in-the-middle (Bavarian et al. 2022, arXiv:2207.14255)."""

from typing import Any

from lmjax.task_specs import language_modeling, loaders
from lmjax.task_specs.key import fraction
from lmjax.task_specs.task_spec import TaskSpec


def _objective() -> Any:
  from lmjax.data.text.objectives import fill_in_the_middle

  return fill_in_the_middle.build


def _infiller() -> Any:
  from lmjax.generation.infilling import FIMInfiller

  return FIMInfiller


def _preview() -> Any:
  from lmjax.training.previews import infilling_or_continuation

  return infilling_or_continuation


SPEC = TaskSpec(
  name="fill_in_the_middle",
  model_kind="infiller",
  build=language_modeling.build,
  preview=_preview,
  keys=dict(
    objective=dict(
      fim_rate=fraction(0.5),  # fraction of the rows that are rearranged
      spm_rate=fraction(0.5),  # fraction of those with the suffix first
    )
  ),
  examples=loaders.rewritten_sequences,
  objective=_objective,
  sampler=loaders.text_sampler,
  scorer=loaders.text_scorer,
  infiller=_infiller,
)
