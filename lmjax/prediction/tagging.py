# SPDX-License-Identifier: Apache-2.0
"""Renderer of tagging: tags of tokens, or words of segmented texts."""

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
    vocabularies: tokenizers, and the names of tags.
    scheme: scheme in which spans are learned; predictions are always in BIO.
  """

  vocabularies: Vocabularies
  scheme: str

  directions: ClassVar[Directions] = {"f1.*": True}

  def render(self, outputs: Outputs, row: Row) -> dict[str, Any]:
    """Return tags or words, with their probabilities.

    Examples, for a tagging scheme and for segmentation:

        {"tags": ["B-PER", "O"], "probabilities": [0.9, 0.8]}
        {"words": ["你好", "吗"], "probabilities": [0.9, 0.7]}

    The probability of a word is the minimum over the tags of its characters.
    """
    names = self.vocabularies.labels["tags"].names
    tokens = divide(row["tokens"], self.scheme)
    tags = [names[tag] for tag in outputs["tags"][: len(tokens)]]
    probabilities = list(map(float, outputs["probabilities"][: len(tokens)]))
    if self.scheme == "none":
      return dict(tags=tags, probabilities=probabilities)
    spans = spans_of(tags)
    if self.scheme == "segmentation":
      return dict(
        words=["".join(tokens[start:end]) for start, end, _ in spans],
        probabilities=[
          min(probabilities[start:end]) for start, end, _ in spans
        ],
      )
    tags = tags_of(spans, len(tags), "bio")
    return dict(tags=tags, probabilities=probabilities)

  def evaluate(
    self, pairs: Iterable[tuple[dict[str, Any], Row]]
  ) -> dict[str, float]:
    """Return F1 for each type of span, or for each tag without spans.

    Segmentation has a single type, whose F1 the sums of the task contain.
    """
    if self.scheme == "segmentation":
      return {}
    correct, predicted, expected = (collections.Counter() for _ in range(3))
    for made, row in pairs:
      found, there = self._units(made["tags"]), self._units(row["tags"])
      predicted.update(unit.type for unit in found)
      expected.update(unit.type for unit in there)
      correct.update(unit.type for unit in found & there)
    # F1 = 2 · correct / (predicted + expected), the harmonic mean of precision
    # and recall.
    total = predicted + expected
    return {f"f1.{k}": 2 * correct[k] / total[k] for k in sorted(total)}

  def _units(self, tags: Sequence[str]) -> set[Span]:
    """Return the units that F1 counts: spans, or single tokens."""
    if self.scheme == "none":
      return {Span(index, index + 1, tag) for index, tag in enumerate(tags)}
    return set(spans_of(tags))
