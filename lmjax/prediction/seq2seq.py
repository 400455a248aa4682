# SPDX-License-Identifier: Apache-2.0
"""The text that is written for another, and how near it comes to others'."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from lmjax.data.records.schemas.schema import Row
from lmjax.data.records.schemas.seq2seq import target_tokenizer
from lmjax.data.tokenizers import EOS
from lmjax.data.vocabularies import Vocabularies
from lmjax.metrics.edit_distance import edit_distance
from lmjax.metrics.metric import Directions
from lmjax.metrics.rouge import KINDS, rouge
from lmjax.prediction.renderer import Outputs

Encode = Callable[[str], Sequence[int]]
Figures = dict[str, float | str]


def _by_number(
  references: Sequence[Sequence[str]],
) -> list[list[str | None]]:
  """List the first reference of each text, the second, and so on."""
  most = max(map(len, references))
  return [
    [own[index] if index < len(own) else None for own in references]
    for index in range(most)
  ]


def bleu(
  texts: Sequence[str], references: Sequence[Sequence[str]], encode: Encode
) -> Figures:
  """Compute BLEU (Papineni et al. 2002), in per cent, with its signature.

  Post 2018 (arXiv:1804.08771).
  """
  import sacrebleu  # when it is needed: it takes a while

  del encode
  metric = sacrebleu.BLEU(force=True)  # no word of texts that are in tokens
  score = metric.corpus_score(texts, _by_number(references)).score
  return dict(bleu=score, bleu_signature=str(metric.get_signature()))


def chrf(
  texts: Sequence[str], references: Sequence[Sequence[str]], encode: Encode
) -> Figures:
  """Compute chrF (Popović 2015), in per cent."""
  import sacrebleu

  del encode
  metric = sacrebleu.CHRF()
  score = metric.corpus_score(texts, _by_number(references)).score
  return dict(chrf=score)


def mean_rouge(
  texts: Sequence[str], references: Sequence[Sequence[str]], encode: Encode
) -> Figures:
  """Compute the means of ROUGE-1, ROUGE-2 and ROUGE-L."""
  del encode
  each = [rouge(text, own) for text, own in zip(texts, references, strict=True)]
  return {kind: statistics.fmean(x[kind] for x in each) for kind in KINDS}


def exact_match(
  texts: Sequence[str], references: Sequence[Sequence[str]], encode: Encode
) -> Figures:
  """Compute the share of texts that are one of their references.

  White space counts as one space.
  """
  del encode
  right = [
    text.split() in [reference.split() for reference in own]
    for text, own in zip(texts, references, strict=True)
  ]
  return dict(exact_match=statistics.fmean(right))


def token_error_rate(
  texts: Sequence[str], references: Sequence[Sequence[str]], encode: Encode
) -> Figures:
  """Compute the errors a token of the nearest reference.

  That is the word error rate of words, and the phoneme error rate of phonemes.
  """
  errors, total = 0, 0
  for text, own in zip(texts, references, strict=True):
    written = list(encode(text))
    others = [list(encode(reference)) for reference in own]
    distances = [edit_distance(written, other) for other in others]
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
  """Divide names between commas.

  >>> names_of("bleu, chrf")
  ["bleu", "chrf"]
  """
  return [name.strip() for name in metrics.split(",") if name.strip()]


@dataclasses.dataclass(frozen=True)
class TextRenderer:
  """See lmjax.prediction.renderer.Renderer.

  Attributes:
    vocabularies: what texts are written in.
    metrics: what is computed of them: names of METRICS, between commas.
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
    """Give the best text and its score, and all that were asked for."""
    del row
    tokenizer = target_tokenizer(self.vocabularies)
    found = []
    for tokens_T, score in zip(
      outputs["targets"], outputs["scores"], strict=True
    ):
      if np.isfinite(score):
        ends = np.flatnonzero(tokens_T == EOS)
        kept = tokens_T[: ends[0]] if len(ends) else tokens_T
        text = tokenizer.decode(kept.tolist())
        found.append(dict(target=text, score=float(score)))
    return {**found[0], "best": found} if len(found) > 1 else found[0]

  def evaluate(self, pairs: Iterable[tuple[dict[str, Any], Row]]) -> Figures:
    """Compare texts with references.

    Rows with one source are a text with several references. They are compared
    as the tokenizer writes them: with blanks around marks, or in lower case, if
    that is how it writes.
    """
    tokenizer = target_tokenizer(self.vocabularies)
    made, references = {}, {}
    for prediction, row in pairs:
      made.setdefault(row["source"], prediction["target"])
      reference = tokenizer.normalize(row["target"])
      references.setdefault(row["source"], []).append(reference)
    texts, others = list(made.values()), list(references.values())
    figures = {}
    for name in names_of(self.metrics):
      figures |= METRICS[name](texts, others, tokenizer.encode)
    return figures
