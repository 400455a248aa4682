# SPDX-License-Identifier: Apache-2.0
"""Minimum Bayes risk: the sample that is most similar to all others.

Kumar & Byrne 2004 (Minimum Bayes-Risk Decoding for Statistical Machine
Translation); over samples of the model, Eikema & Aziz 2020 (arXiv:2005.10283).
"""

import collections
from collections.abc import Callable, Sequence

# (text, reference) → similarity in percent.
Utility = Callable[[str, str], float]


def expected_utilities(texts: Sequence[str], utility: Utility) -> list[float]:
  """Return the mean utility of each text with all texts, including itself.

  A text that was sampled twice counts twice.

  >>> expected_utilities(["a", "b", "a"], lambda x, y: float(x == y))
  [2 / 3, 1 / 3, 2 / 3]
  """
  counts = collections.Counter(texts)
  means = {
    text: sum(n * utility(text, other) for other, n in counts.items())
    / len(texts)
    for text in counts
  }
  return [means[text] for text in texts]


def chrf() -> Utility:
  """Return the chrF utility (Popović 2015)."""
  import sacrebleu  # here because it is slow to import

  metric = sacrebleu.CHRF()
  return lambda text, other: metric.sentence_score(text, [other]).score


def bleu() -> Utility:
  """Return the smoothed sentence BLEU utility (Papineni et al. 2002).

  Orders beyond the length of a text are omitted.
  """
  import sacrebleu

  metric = sacrebleu.BLEU(effective_order=True, force=True)
  return lambda text, other: metric.sentence_score(text, [other]).score


UTILITIES: dict[str, Callable[[], Utility]] = {"chrf": chrf, "bleu": bleu}
