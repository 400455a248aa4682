# SPDX-License-Identifier: Apache-2.0
"""Next-token prediction on running text."""

from typing import Any

from ml_collections import ConfigDict

from lmjax.task_specs import loaders
from lmjax.task_specs.task_spec import TaskSpec


def build(config: ConfigDict, model: Any, corpus: Any) -> Any:
  """Build the task of predicting each token from those before it."""
  from lmjax.tasks.language_modeling import LanguageModeling
  from lmjax.tasks.task import LossOptions

  return LanguageModeling(
    model=model,
    loss_options=LossOptions(**config.loss),
    **corpus.task_inputs,
  )


def _explainer() -> Any:
  from lmjax.interpretability.explainers import explain_next_token

  return explain_next_token


SPEC = TaskSpec(
  name="language_modeling",
  model_kind="decoder",
  build=build,
  preview=loaders.continuation_preview,
  examples=loaders.token_sequences,
  sampler=loaders.text_sampler,
  scorer=loaders.text_scorer,
  explainer=_explainer,
  is_auxiliary=True,
  is_stateful=True,
)
