# SPDX-License-Identifier: Apache-2.0
"""The tags of a text, or its words."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from lmjax.data.records.schemas.schema import Row
from lmjax.data.records.tag_schemes import Span, divide, spans_of, tags_of
from lmjax.data.vocabularies import Vocabularies
from lmjax.metrics.metric import Directions
from lmjax.prediction.renderer import Outputs


@dataclasses.dataclass(frozen=True)
class TagRenderer:
  """See lmjax.prediction.renderer.Renderer.

  Attributes:
    vocabularies: what the fields are written in.
    scheme: how spans were learned; in predictions they are in BIO.
  """

  vocabularies: Vocabularies
  scheme: str

  directions: ClassVar[Directions] = {"f1.*": True}

  def render(self, outputs: Outputs, row: Row) -> dict[str, Any]:
    """Name each token's tag, or the words, with their probabilities.

    A word is as likely as the least likely of its characters' tags.
    """
    names = self.vocabularies.labels["tags"].names
    tokens = divide(row["tokens"], self.scheme)
    tags = [names[tag] for tag in outputs["tags"][: len(tokens)]]
    shares = [float(share) for share in outputs["probabilities"][: len(tokens)]]
    if self.scheme == "none":
      return dict(tags=tags, probabilities=shares)
    spans = spans_of(tags)
    if self.scheme == "segmentation":
      return dict(
        words=["".join(tokens[start:end]) for start, end, _ in spans],
        probabilities=[min(shares[start:end]) for start, end, _ in spans],
      )
    return dict(tags=tags_of(spans, len(tags), "bio"), probabilities=shares)

  def evaluate(
    self, pairs: Iterable[tuple[dict[str, Any], Row]]
  ) -> dict[str, float]:
    """Compute F1 for each type of span; for each tag where there are none.

    Of words there is but one type, whose F1 is among the task's sums.
    """
    if self.scheme == "segmentation":
      return {}
    right, predicted, wanted = (collections.Counter() for _ in range(3))
    for made, row in pairs:
      found, there = self._units(made["tags"]), self._units(row["tags"])
      predicted.update(unit.type for unit in found)
      wanted.update(unit.type for unit in there)
      right.update(unit.type for unit in found & there)
    total = predicted + wanted
    return {f"f1.{k}": 2 * right[k] / total[k] for k in sorted(total)}

  def _units(self, tags: Sequence[str]) -> set[Span]:
    """Return what is counted: spans, or single tokens."""
    if self.scheme == "none":
      return {Span(index, index + 1, tag) for index, tag in enumerate(tags)}
    return set(spans_of(tags))
