# SPDX-License-Identifier: Apache-2.0
"""Renderer of seq2seq: target texts, and metrics against references."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from lmjax.data.records.schemas.schema import Row
from lmjax.data.records.schemas.seq2seq import target_tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.metrics.edit_distance import edit_distance
from lmjax.metrics.metric import Directions
from lmjax.metrics.rouge import KINDS, rouge
from lmjax.prediction.renderer import Outputs

Encode = Callable[[str], Sequence[int]]  # text → tokens
Metrics = dict[str, float | str]  # by name


def _by_number(
  references: Sequence[Sequence[str]],
) -> list[list[str | None]]:
  """Return the first reference of each text, the second, and so on.

  sacreBLEU takes references in this order, with None where a text has fewer.

  >>> _by_number([["a", "b"], ["c"]])
  [["a", "c"], ["b", None]]
  """
  maximum = max(map(len, references))
  return [
    [own[index] if index < len(own) else None for own in references]
    for index in range(maximum)
  ]


def bleu(
  texts: Sequence[str], references: Sequence[Sequence[str]], encode: Encode
) -> Metrics:
  """Return BLEU in percent (Papineni et al. 2002), with its signature.

  The signature states the tokenization and smoothing, without which scores are
  not comparable (Post 2018, arXiv:1804.08771).
  """
  import sacrebleu  # on demand: the import is slow

  del encode
  # `force` silences the warning about references that look tokenized.
  metric = sacrebleu.BLEU(force=True)
  score = metric.corpus_score(texts, _by_number(references)).score
  return dict(bleu=score, bleu_signature=str(metric.get_signature()))


def chrf(
  texts: Sequence[str], references: Sequence[Sequence[str]], encode: Encode
) -> Metrics:
  """Return chrF in percent (Popović 2015)."""
  import sacrebleu

  del encode
  metric = sacrebleu.CHRF()
  score = metric.corpus_score(texts, _by_number(references)).score
  return dict(chrf=score)


def mean_rouge(
  texts: Sequence[str], references: Sequence[Sequence[str]], encode: Encode
) -> Metrics:
  """Return the means over texts of ROUGE-1, ROUGE-2 and ROUGE-L."""
  del encode
  each = [rouge(text, own) for text, own in zip(texts, references, strict=True)]
  return {kind: statistics.fmean(x[kind] for x in each) for kind in KINDS}


def exact_match(
  texts: Sequence[str], references: Sequence[Sequence[str]], encode: Encode
) -> Metrics:
  """Return the fraction of texts that equal one of their references.

  Texts that differ only in the amount of white space are equal.
  """
  del encode
  correct = [
    text.split() in [reference.split() for reference in own]
    for text, own in zip(texts, references, strict=True)
  ]
  return dict(exact_match=statistics.fmean(correct))


def token_error_rate(
  texts: Sequence[str], references: Sequence[Sequence[str]], encode: Encode
) -> Metrics:
  """Return the number of edits per token of the nearest references.

  With tokens that are words, this is the word error rate; with phonemes, the
  phoneme error rate.
  """
  errors, total = 0, 0
  for text, own in zip(texts, references, strict=True):
    predicted = list(encode(text))
    others = [list(encode(reference)) for reference in own]
    distances = [edit_distance(predicted, other) for other in others]
    nearest = int(np.argmin(distances))
    errors += distances[nearest]
    total += len(others[nearest])
  return dict(token_error_rate=errors / max(total, 1))


METRICS = {
  "bleu": bleu,
  "chrf": chrf,
  "rouge": mean_rouge,
  "exact_match": exact_match,
  "token_error_rate": token_error_rate,
}


def names_of(metrics: str) -> list[str]:
  """Split a comma-separated list of names.

  >>> names_of("bleu, chrf")
  ["bleu", "chrf"]
  """
  return [name.strip() for name in metrics.split(",") if name.strip()]


@dataclasses.dataclass(frozen=True)
class TextRenderer:
  """See lmjax.prediction.renderer.Renderer.

  Attributes:
    vocabularies: tokenizers of sources and targets.
    metrics: comma-separated keys of METRICS.
  """

  vocabularies: Vocabularies
  metrics: str

  directions: ClassVar[Directions] = {
    "bleu": True,
    "chrf": True,
    "rouge*": True,
    "exact_match": True,
    "token_error_rate": False,
  }

  def render(self, outputs: Outputs, row: Row) -> dict[str, Any]:
    """Return the best hypothesis, and the list of all if there are several.

    {"target": "b", "score": -0.2, "best": [{"target": "b", "score": -0.2},
      {"target": "c", "score": -0.9}]}
    """
    del row
    tokenizer = target_tokenizer(self.vocabularies)
    found = []
    for tokens_T, score in zip(
      outputs["targets"], outputs["scores"], strict=True
    ):
      # A beam that finds fewer hypotheses fills up with scores of −inf.
      if np.isfinite(score):
        ends = np.flatnonzero(tokens_T == tokenizer.eos_id)
        target_T = tokens_T[: ends[0]] if len(ends) else tokens_T
        text = tokenizer.decode(target_T.tolist())
        found.append(dict(target=text, score=float(score)))
    return {**found[0], "best": found} if len(found) > 1 else found[0]

  def evaluate(self, pairs: Iterable[tuple[dict[str, Any], Row]]) -> Metrics:
    """Return the metrics of predicted texts against references.

    Rows with the same source are one text with several references. References
    are normalized as the tokenizer does, for example to lower case, since
    predictions are decoded from such tokens.
    """
    tokenizer = target_tokenizer(self.vocabularies)
    predictions, references = {}, {}
    for prediction, row in pairs:
      predictions.setdefault(row["source"], prediction["target"])
      reference = tokenizer.normalize(row["target"])
      references.setdefault(row["source"], []).append(reference)
    texts, others = list(predictions.values()), list(references.values())
    metrics = {}
    for name in names_of(self.metrics):
      metrics |= METRICS[name](texts, others, tokenizer.encode)
    return metrics
