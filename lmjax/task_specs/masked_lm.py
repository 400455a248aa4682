# SPDX-License-Identifier: Apache-2.0
"""Masked language modeling (BERT, Devlin et al. 2019, arXiv:1810.04805)."""

from typing import Any

from ml_collections import ConfigDict

from lmjax.task_specs import loaders
from lmjax.task_specs.key import Key
from lmjax.task_specs.task_spec import TaskSpec

MASK_RATE = Key(0.15, 1e-3, 0.999)


def _build(config: ConfigDict, model: Any, corpus: Any) -> Any:
  from lmjax.tasks.masked_lm import MaskedLM
  from lmjax.tasks.task import LossOptions

  return MaskedLM(
    model=model,
    loss_options=LossOptions(**config.loss),
    **corpus.task_inputs,
  )


def _objective() -> Any:
  from lmjax.data.text.objectives import masking

  return masking.build


def _infiller() -> Any:
  from lmjax.generation.infilling import MaskInfiller

  return MaskInfiller


SPEC = TaskSpec(
  name="masked_lm",
  model_kind="encoder",
  build=_build,
  preview=loaders.infilling_preview,
  keys=dict(
    objective=dict(
      mask_rate=MASK_RATE,  # fraction of the tokens that are predicted
      whole_words=Key(False),  # mask all tokens of a word together
    )
  ),
  examples=loaders.rewritten_sequences,
  objective=_objective,
  infiller=_infiller,
)
