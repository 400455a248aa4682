# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.prediction.word_similarity import WordSpace, show

V, D = 23, 6


@pytest.fixture(scope="module")
def planted():
  """Nouns with and without a common offset, of very different lengths."""
  rng = np.random.default_rng(0)
  nouns = rng.normal(size=(9, 32))
  nouns /= np.linalg.norm(nouns, axis=1, keepdims=True)
  plural = 0.8 * nouns[0]
  stems = nouns[1:]
  vectors = np.concatenate([stems, stems + plural])
  lengths = rng.uniform(0.1, 50.0, (16, 1))
  words = [f"noun{n}" for n in range(8)] + [f"noun{n}s" for n in range(8)]
  return WordSpace(words, vectors * lengths)


def test_finds_planted_analogies(planted):
  for a in range(8):
    for c in range(8):
      if a != c:
        found = planted.analogy(f"noun{a}", f"noun{a}s", f"noun{c}", 3)
        assert found[0][0] == f"noun{c}s"
        given = {f"noun{a}", f"noun{a}s", f"noun{c}"}
        assert not given & {word for word, _ in found}


def test_neighbors_have_the_highest_cosine():
  vectors = np.random.default_rng(1).normal(size=(V, D))
  words = [f"w{n}" for n in range(V)]
  space = WordSpace(words, vectors)
  found = space.nearest("w7", V)
  cosines = {
    word: vector
    @ vectors[7]
    / np.linalg.norm(vector)
    / np.linalg.norm(vectors[7])
    for word, vector in zip(words, vectors, strict=True)
    if word != "w7"
  }
  assert [w for w, _ in found] == sorted(cosines, key=cosines.get)[::-1]
  np.testing.assert_allclose(
    [c for _, c in found], sorted(cosines.values())[::-1], atol=1e-6
  )
  assert space.nearest("w7", 3) == found[:3]


def test_error_names_unknown_word(planted):
  with pytest.raises(UserError, match="'queen' is not among the 16 words"):
    planted.analogy("noun1", "queen", "noun2")


def test_zero_vectors_have_cosine_zero():
  space = WordSpace(["zero", "a", "b"], np.array([[0, 0], [1, 0], [0, 1]]))
  assert dict(space.nearest("zero")) == {"a": 0.0, "b": 0.0}
  assert show([("a", 0.712), ("b", -0.1)]) == "a 0.71, b -0.10"
