# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmjax.ngrams.backoff import Backoff, score
from lmjax.ngrams.counting import count
from lmjax.ngrams.grams import spell

V = 4
TRAIN, TEST = np.random.default_rng(0).integers(0, V, (2, 29))


@pytest.fixture(scope="module")
def model():
  """Three orders of grams that occur, with numbers drawn at random."""
  rng = np.random.default_rng(1)
  return [
    Backoff(level.grams, *rng.normal(size=(2, len(level.grams))))
    for level in count(TRAIN, 3, V)
  ]


def by_hand(model, context, word):
  """Follow the rule, with dictionaries."""
  tables = {}
  for k, level in enumerate(model, 1):
    rows = spell([m.grams for m in model[:k]], 0, len(level.grams))
    for row, *values in zip(
      rows.tolist(), level.log_probs, level.log_weights, strict=True
    ):
      tables[tuple(row)] = values
  weight = 0.0
  while (*context, word) not in tables:
    weight += tables.get(context, (0.0, 0.0))[1]
    context = context[1:]
  return weight + tables[*context, word][0]


@pytest.mark.parametrize("starts", [[0], [0, 1, 9, 9, 28, 29]])
def test_scores_follow_the_rule(model, starts):
  expected = []
  for i, word in enumerate(TEST.tolist()):
    start = max(start for start in starts if start <= i)
    context = tuple(TEST[max(start, i - 2) : i].tolist())
    expected.append(by_hand(model, context, word))
  np.testing.assert_allclose(score(model, TEST, starts), expected, rtol=1e-12)
