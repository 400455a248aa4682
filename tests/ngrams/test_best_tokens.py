# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest

from lmjax.ngrams.backoff import Backoff, score
from lmjax.ngrams.best_tokens import best_tokens
from lmjax.ngrams.counting import count
from lmjax.ngrams.grams import spell

V, ORDER = 7, 4
TEXT = np.random.default_rng(0).integers(0, V - 1, 200)  # V - 1 never occurs


@pytest.mark.parametrize("highest", [0.0, 2.0, 5.0])
@pytest.mark.parametrize("distinct", [3, 1000])
def test_the_best_is_the_best_of_all(distinct, highest):
  """With weights below 1 and above, and with many equal logarithms or few."""
  rng = np.random.default_rng(distinct)

  def draw(size):
    return rng.integers(0, distinct, size) / np.float32(1 << 10)

  model = [
    Backoff(
      level.grams, draw(len(level.grams)) - 4, draw(len(level.grams)) - highest
    )
    for level in count(TEXT, ORDER, V)
  ]
  grams = [level.grams for level in model]
  found = best_tokens(model)
  assert [len(best) for best in found] == [len(g) for g in grams[:-1]]
  sources = set()
  for k, best in enumerate(found, 1):
    contexts = spell(grams[:k], 0, len(grams[k - 1])).tolist()
    texts = [[*h, word] for h, word in itertools.product(contexts, range(V))]
    starts = np.arange(len(texts)) * (k + 1)
    scores = score(model, np.concatenate(texts), starts)[k :: k + 1]
    expected = scores.reshape(-1, V).argmax(axis=1)  # the first of equals
    np.testing.assert_array_equal(best, expected)
    sources |= set(grams[k].find(np.arange(len(best)), best) >= 0)
  assert sources == {False, True}  # some are seen behind their context
