# SPDX-License-Identifier: Apache-2.0
"""Predicted classes of texts, with their probabilities."""

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
    """Return the label or labels, and the probability of every label."""
    del row
    names = self.vocabularies.labels["label"].names
    shares = map(float, outputs["probabilities"])
    probabilities = dict(zip(names, shares, strict=True))
    if "label" in outputs:
      chosen = dict(label=names[int(outputs["label"])])
    else:
      held = zip(names, outputs["labels"], strict=True)
      chosen = dict(labels=[name for name, has in held if has])
    return dict(**chosen, probabilities=probabilities)

  def evaluate(
    self, pairs: Iterable[tuple[dict[str, Any], Row]]
  ) -> dict[str, float]:
    """Return no metrics: all of them are computed from sums."""
    del pairs
    return {}
