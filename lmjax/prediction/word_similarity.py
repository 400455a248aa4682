# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbors of words, and analogies."""

from collections.abc import Sequence

import numpy as np

from lmjax.errors import UserError

Neighbors = list[tuple[str, float]]  # words and cosines, nearest first


class WordSpace:
  """Words and their vectors, compared by cosine similarity.

  Args:
    words: V words; of repeated words, the first is used.
    vectors_VD: their vectors.
  """

  def __init__(self, words: Sequence[str], vectors_VD: np.ndarray):
    self.words = list(words)
    vectors_VD = np.asarray(vectors_VD, np.float32)
    norms_V1 = np.linalg.norm(vectors_VD, axis=1, keepdims=True)
    # The bound keeps the zero vector, which has no direction, finite.
    self._directions_VD = vectors_VD / np.maximum(norms_V1, 1e-30)
    self._index: dict[str, int] = {}
    for index, word in enumerate(self.words):
      self._index.setdefault(word, index)

  def nearest(self, word: str, number: int = 10) -> Neighbors:
    """Return the words with the highest cosine, except the word itself."""
    index = self._find(word)
    return self._nearest(self._directions_VD[index], [index], number)

  def analogy(self, a: str, b: str, c: str, number: int = 10) -> Neighbors:
    """Return the words that are to c as b is to a, except these three.

    They have the highest cosine with b − a + c, computed from normalized
    vectors (3CosAdd; Mikolov et al. 2013, NAACL; Levy & Goldberg 2014).

    >>> space.analogy("man", "king", "woman", number=1)
    [("queen", 0.71)]
    """
    given = [self._find(word) for word in (a, b, c)]
    minus_D, plus_D, start_D = self._directions_VD[given]
    return self._nearest(plus_D - minus_D + start_D, given, number)

  def describe(self, word: str, number: int = 10) -> str:
    """Return a line: the word, its nearest words, and their cosines."""
    return f"{word}: {show(self.nearest(word, number))}"

  def _find(self, word: str) -> int:
    if word not in self._index:
      raise UserError(
        f"{word!r} is not among the {len(self.words):,} words; try others."
      )
    return self._index[word]

  def _nearest(
    self, vector_D: np.ndarray, given: Sequence[int], number: int
  ) -> Neighbors:
    norm = max(float(np.linalg.norm(vector_D)), 1e-30)
    cosines_V = self._directions_VD @ (vector_D / norm)
    cosines_V[list(given)] = -np.inf
    order = np.argsort(-cosines_V, kind="stable")[:number]
    return [
      (self.words[index], float(cosines_V[index]))
      for index in order
      if cosines_V[index] > -np.inf
    ]


def show(neighbors: Neighbors) -> str:
  """Write neighbors in a line.

  >>> show([("queen", 0.712), ("monarch", 0.6)])
  "queen 0.71, monarch 0.60"
  """
  return ", ".join(f"{word} {cosine:.2f}" for word, cosine in neighbors)
