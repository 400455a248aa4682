# SPDX-License-Identifier: Apache-2.0
"""Text classification, with one label or any number of them per text."""

from typing import Any

from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.task_specs import loaders
from lmjax.task_specs.key import Key, choice, rate
from lmjax.task_specs.loss_checks import check_loss_is_unused
from lmjax.task_specs.task_spec import TaskSpec

# Losses of independent yes–no decisions, which texts with several labels need.
MULTI_LABEL_LOSSES = (
  "focal",
  "binary_cross_entropy",
  "mean_squared_error",
  "hinge",
  "exponential",
)


def _build(config: ConfigDict, model: Any, corpus: Any) -> Any:
  from lmjax.tasks.classification import Classification
  from lmjax.tasks.task import LossOptions

  options = config.classification
  return Classification(
    model=model,
    criterion=options.criterion,
    focal_gamma=options.focal_gamma,
    class_weights=options.class_weights,
    loss_options=LossOptions(**config.loss),
    distill_weight=config.distill.weight,
    temperature=config.distill.temperature,
    **corpus.task_inputs,
  )


def _schema() -> Any:
  from lmjax.data.records.schemas import classification

  return classification.build


def _head() -> Any:
  from lmjax.models.heads import text_classifier

  return text_classifier.build


def _renderer(config: ConfigDict, vocabularies: Any) -> Any:
  from lmjax.prediction.classification import ClassRenderer

  del config
  return ClassRenderer(vocabularies)


def _explainer() -> Any:
  from lmjax.interpretability.explainers import explain_label

  return explain_label


def _check(config: ConfigDict) -> None:
  options = config.classification
  if options.labels == "many" and options.criterion not in MULTI_LABEL_LOSSES:
    raise UsageError(
      f"classification.criterion={options.criterion} needs exactly one label "
      f"per text; choose one of {', '.join(MULTI_LABEL_LOSSES)} for "
      "classification.labels=many."
    )
  if options.labels == "many" and options.class_weights != "none":
    raise UsageError(
      f"classification.class_weights={options.class_weights} needs exactly one "
      "label per text; set it to none for classification.labels=many."
    )
  if options.criterion != "cross_entropy":
    check_loss_is_unused(
      config, f"classification.criterion={options.criterion}"
    )


SPEC = TaskSpec(
  name="classification",
  model_kind="text_encoder",
  build=_build,
  preview=loaders.prediction_preview,
  keys=dict(
    classification=dict(
      labels=choice("one", "many"),
      separator=Key(","),  # between the labels of a text, with labels=many
      criterion=choice(
        "cross_entropy", "multiclass_hinge", *MULTI_LABEL_LOSSES
      ),
      focal_gamma=Key(2.0),  # focusing parameter γ of the focal loss
      class_weights=choice("none", "balanced"),
      # How the hidden vectors of a text become one.
      pooling=Key("max", choices=("last", "first", "mean", "max", "attention")),
      dropout=rate(0.5),  # on the pooled features
    )
  ),
  schema=_schema,
  columns=dict(text="text", label="label"),
  source="python_docstrings",
  head=_head,
  renderer=_renderer,
  explainer=_explainer,
  checks=_check,
  distills=True,
)
