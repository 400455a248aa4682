# SPDX-License-Identifier: Apache-2.0
"""Renderer of matching: labels or similarities, and retrieval metrics.

Dimension letters:

    Q  queries
"""

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from lmjax.data.records.schemas.matching import TEXTS
from lmjax.data.records.schemas.schema import Row
from lmjax.data.vocabularies import Vocabularies
from lmjax.metrics.correlation import spearman
from lmjax.metrics.metric import Directions
from lmjax.metrics.ranking import figures, make_question, ranks
from lmjax.prediction.renderer import Outputs


class Match(dict):
  """A prediction as JSON, with the vectors of the texts as an attribute.

  Attributes:
    vectors: role, "first" or "second", → vector, [D]. They are not part of
      the JSON, which they would make much longer.
  """

  vectors: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class MatchRenderer:
  """See lmjax.prediction.renderer.Renderer.

  Attributes:
    vocabularies: tokenizers of the texts, and labels.
    num_candidates: number of second texts of a split that are searched in
      evaluation; 0 for all.
  """

  vocabularies: Vocabularies
  num_candidates: int

  directions: ClassVar[Directions] = {
    "spearman": True,
    "recall@*": True,
    "mrr": True,
  }

  def render(self, outputs: Outputs, row: Row) -> Match:
    """Return what matching.loss trains.

    classification: {"label": "yes", "probabilities": {"no": 0.1, "yes": 0.9}};
    regression and distribution: {"score": 4.2};
    contrastive and triplet: {"similarity": 0.71}.
    """
    del row
    match = Match()
    match.vectors = {k: outputs[k] for k in TEXTS if k in outputs}
    if "probabilities" in outputs:
      names = self.vocabularies.labels["label"].names
      values = map(float, outputs["probabilities"])
      probabilities = dict(zip(names, values, strict=True))
      label = max(probabilities, key=probabilities.get)
      match.update(label=label, probabilities=probabilities)
    for name in ("score", "similarity"):
      if name in outputs:
        match[name] = float(outputs[name])
    return match

  def evaluate(self, pairs: Iterable[tuple[Match, Row]]) -> dict[str, float]:
    """Return Spearman's correlation of scores, or retrieval metrics."""
    scores, labels, vectors = [], [], {role: {} for role in TEXTS}
    for match, row in pairs:
      if "score" in match:
        scores.append(match["score"])
        labels.append(float(row["label"]))
      for role, vector_D in match.vectors.items():
        # Texts can occur in several pairs; one vector of each is searched.
        vectors[role][row[role]] = vector_D
      if match.vectors:
        labels.append(tuple(row[role] for role in TEXTS))
    if scores:
      return dict(spearman=spearman(scores, labels))
    return self._evaluate_retrieval(labels, vectors) if labels else {}

  def _evaluate_retrieval(
    self,
    pairs: list[tuple[str, str]],
    vectors: dict[str, dict[str, np.ndarray]],
  ) -> dict[str, float]:
    """Search the second texts of a split by its first texts.

    Args:
      pairs: first and second text of each pair.
      vectors: role → text → vector.
    """
    question = make_question(pairs, self.num_candidates)
    queries_QD, candidates_ND = (
      np.stack([vectors[role][text] for text in texts])
      for role, texts in zip(TEXTS, question[:2], strict=True)
    )
    return figures(ranks(queries_QD, candidates_ND, question.right_QN))
