# SPDX-License-Identifier: Apache-2.0
"""Prefix language modeling: a bidirectional prompt, then next tokens."""

from typing import Any

from lmjax.task_specs import language_modeling, loaders
from lmjax.task_specs.task_spec import TaskSpec


def _objective() -> Any:
  from lmjax.data.text.objectives import prefix

  return prefix.build


def _sampler() -> Any:
  import functools

  from lmjax.generation.text_sampler import TextSampler

  return functools.partial(TextSampler, bidirectional_prompt=True)


def _scorer() -> Any:
  from lmjax.scoring.scorers import continuation_scorer

  return continuation_scorer


SPEC = TaskSpec(
  name="prefix_lm",
  model_kind="prefix_decoder",
  build=language_modeling.build,
  preview=loaders.continuation_preview,
  examples=loaders.rewritten_sequences,
  objective=_objective,
  model_options=dict(prefix_mask=True),
  sampler=_sampler,
  scorer=_scorer,
)
