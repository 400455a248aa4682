# SPDX-License-Identifier: Apache-2.0
"""Span corruption (T5, Raffel et al. 2020, arXiv:1910.10683)."""

from typing import Any

from ml_collections import ConfigDict

from lmjax.task_specs import loaders
from lmjax.task_specs.key import positive
from lmjax.task_specs.masked_lm import MASK_RATE
from lmjax.task_specs.task_spec import TaskSpec


def _build(config: ConfigDict, model: Any, corpus: Any) -> Any:
  from lmjax.tasks.seq2seq import DenoisingSeq2Seq
  from lmjax.tasks.task import LossOptions

  return DenoisingSeq2Seq(
    model=model,
    loss_options=LossOptions(**config.loss),
    **corpus.task_inputs,
  )


def _objective() -> Any:
  from lmjax.data.text.objectives import span_corruption

  return span_corruption.build


def _infiller() -> Any:
  from lmjax.generation.infilling import SpanInfiller

  return SpanInfiller


SPEC = TaskSpec(
  name="span_corruption",
  model_kind="encoder_decoder",
  build=_build,
  preview=loaders.infilling_preview,
  keys=dict(
    objective=dict(
      mask_rate=MASK_RATE,  # fraction of the tokens in corrupted spans
      span_length=positive(3.0),  # mean number of tokens of a span
    )
  ),
  examples=loaders.rewritten_sequences,
  objective=_objective,
  infiller=_infiller,
)
