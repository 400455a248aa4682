# SPDX-License-Identifier: Apache-2.0
"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), without stemming."""

import collections
import re
from collections.abc import Sequence

KINDS = ("rouge1", "rouge2", "rougeL")
_WORD = re.compile(r"[^\W_]+")


def rouge(text: str, references: Sequence[str]) -> dict[str, float]:
  """Compare a text with references; of each kind the best F1 counts.

  Words are runs of letters and digits in lower case.

  Returns:
    F1 between 0 and 1 by the names of KINDS.
  """
  words = _words(text)
  others = [_words(reference) for reference in references]
  return dict(
    rouge1=max(_grams_f1(words, other, 1) for other in others),
    rouge2=max(_grams_f1(words, other, 2) for other in others),
    rougeL=max(
      _f1(_common(words, other), len(words), len(other)) for other in others
    ),
  )


def _words(text: str) -> list[str]:
  return _WORD.findall(text.lower())


def _grams_f1(a: list[str], b: list[str], order: int) -> float:
  grams_a, grams_b = (
    collections.Counter(
      tuple(x[i : i + order]) for i in range(len(x) - order + 1)
    )
    for x in (a, b)
  )
  shared = (grams_a & grams_b).total()
  return _f1(shared, grams_a.total(), grams_b.total())


def _f1(shared: int, size_a: int, size_b: int) -> float:
  """Return the harmonic mean of shared / size_a and shared / size_b."""
  return 2.0 * shared / (size_a + size_b) if shared else 0.0


def _common(a: list[str], b: list[str]) -> int:
  """Return the length of the longest common subsequence."""
  row = [0] * (len(b) + 1)
  for x in a:
    before = 0  # row[j - 1] of the row above
    for j, y in enumerate(b, 1):
      above = row[j]
      row[j] = before + 1 if x == y else max(above, row[j - 1])
      before = above
  return row[-1]
