# SPDX-License-Identifier: Apache-2.0
"""The class of a text, with the probability of each."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from lmjax.data.records.schemas.schema import Row
from lmjax.data.vocabularies import Vocabularies
from lmjax.prediction.renderer import Outputs


@dataclasses.dataclass(frozen=True)
class ClassPrediction:
  """See lmjax.prediction.renderer.Prediction."""

  vocabularies: Vocabularies

  def render(self, outputs: Outputs, row: Row) -> dict[str, Any]:
    """Name the label or the labels, and the probability of each."""
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

  def judge(
    self, pairs: Iterable[tuple[dict[str, Any], Row]]
  ) -> dict[str, float]:
    """Return nothing: all figures are sums."""
    del pairs
    return {}
