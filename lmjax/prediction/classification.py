# SPDX-License-Identifier: Apache-2.0
"""Renderer of classification: predicted labels and their probabilities."""

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

from lmjax.data.records.schemas.schema import Row
from lmjax.data.vocabularies import Vocabularies
from lmjax.metrics.metric import Directions
from lmjax.prediction.renderer import Outputs


@dataclasses.dataclass(frozen=True)
class ClassRenderer:
  """See lmjax.prediction.renderer.Renderer."""

  vocabularies: Vocabularies

  directions: ClassVar[Directions] = {}

  def render(self, outputs: Outputs, row: Row) -> dict[str, Any]:
    """Return the label or labels, and the probability of every label.

    With classification.labels=one:

        {"label": "even", "probabilities": {"even": 0.9, "odd": 0.1}}

    With classification.labels=many, whose probabilities do not sum to 1:

        {"labels": ["a", "b"], "probabilities": {"a": 0.9, "b": 0.6, "c": 0.1}}
    """
    del row
    names = self.vocabularies.labels["label"].names
    values = map(float, outputs["probabilities"])
    probabilities = dict(zip(names, values, strict=True))
    if "label" in outputs:
      predicted = dict(label=names[int(outputs["label"])])
    else:
      flags = zip(names, outputs["labels"], strict=True)
      predicted = dict(labels=[name for name, is_set in flags if is_set])
    return dict(**predicted, probabilities=probabilities)

  def evaluate(
    self, pairs: Iterable[tuple[dict[str, Any], Row]]
  ) -> dict[str, float]:
    """Return no metrics: all of them are computed from sums."""
    del pairs
    return {}
