# SPDX-License-Identifier: Apache-2.0
"""Minimum Bayes risk: of texts that were drawn, the one most like all others.

Kumar & Byrne 2004 (Minimum Bayes-Risk Decoding for Statistical Machine
Translation); over samples of the model, Eikema & Aziz 2020 (arXiv:2005.10283).
"""

import collections
from collections.abc import Callable, Sequence

# (text, the text that it is compared with) → how good it is, in per cent.
Utility = Callable[[str, str], float]


def expected_utilities(texts: Sequence[str], utility: Utility) -> list[float]:
  """Average the utility of each text over all texts, itself among them.

  So a text that was drawn twice counts twice.

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
  """Return chrF of texts (Popović 2015)."""
  import sacrebleu  # when it is needed: it takes a while

  metric = sacrebleu.CHRF()
  return lambda text, other: metric.sentence_score(text, [other]).score


def bleu() -> Utility:
  """Return BLEU of texts (Papineni et al. 2002), smoothed, as sentences need.

  Orders beyond the length of a text are left out.
  """
  import sacrebleu

  metric = sacrebleu.BLEU(effective_order=True, force=True)
  return lambda text, other: metric.sentence_score(text, [other]).score


UTILITIES: dict[str, Callable[[], Utility]] = {"chrf": chrf, "bleu": bleu}
