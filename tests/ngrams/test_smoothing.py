# SPDX-License-Identifier: Apache-2.0
"""Smoothing against numbers worked out by hand, and against KenLM.

golden/kenlm.arpa is what KenLM's lmplz makes of golden/sentences.txt:

    lmplz -o 3 --discount_fallback --text sentences.txt --arpa kenlm.arpa

Order 1 has too few grams for its discounts, so both fall back there.
"""

import functools
import itertools
from pathlib import Path

import numpy as np
import pytest

from lmjax.ngrams import arpa, smoothing
from lmjax.ngrams.backoff import score
from lmjax.ngrams.counting import count

GOLDEN = Path(__file__).parent / "golden"
V, ORDER, BOS = 5, 3, 1
TEXT = np.random.default_rng(0).choice([0, 2, 3], 40)  # 4 never occurs
DOCUMENTS = [0, 11, 12, 30]
TEXT[DOCUMENTS] = BOS
NORMALIZED = {
  "maximum_likelihood": smoothing.maximum_likelihood,
  "add_k": functools.partial(smoothing.add_k, k=0.3),
  "stupid_backoff": functools.partial(smoothing.stupid_backoff, factor=0.4),
  "kneser_ney": smoothing.kneser_ney,
  "modified_kneser_ney": smoothing.modified_kneser_ney,
}


def distributions(model, length):
  """Return p(word | context) for all contexts, {context: [V]}."""
  vocab_size = len(model[0].log_probs)
  contexts = list(itertools.product(range(vocab_size), repeat=length))
  texts = [(*h, word) for h in contexts for word in range(vocab_size)]
  starts = np.arange(len(texts)) * (length + 1)
  scores = score(model, np.concatenate(texts), starts)[length :: length + 1]
  return dict(
    zip(contexts, np.exp(scores).reshape(-1, vocab_size), strict=True)
  )


def frequency(*row):
  """Count a gram of the text, not across documents."""
  ends = [*DOCUMENTS[1:], len(TEXT)]
  return sum(
    tuple(TEXT[i : i + len(row)]) == row
    for start, end in zip(DOCUMENTS, ends, strict=True)
    for i in range(start, end - len(row) + 1)
  )


def followed(*row):
  """Count how often a token follows a gram."""
  return sum(frequency(*row, word) for word in range(V))


@pytest.fixture(scope="module")
def counts():
  return count(TEXT, ORDER, V, DOCUMENTS)


@pytest.mark.parametrize("method", NORMALIZED)
def test_probabilities_sum_to_one(counts, method):
  model = NORMALIZED[method](counts, excluded=[BOS])
  for length in range(ORDER + 1):
    for probs in distributions(model, length).values():
      assert abs(probs.sum() - 1) < 1e-12
      assert probs[BOS] == 0
      assert method == "maximum_likelihood" or np.all(np.delete(probs, BOS) > 0)


@pytest.mark.parametrize("method", NORMALIZED)
def test_excluded_tokens_may_stand_within_the_text(method):
  model = NORMALIZED[method](count(TEXT, ORDER, V), excluded=[BOS])
  for probs in distributions(model, ORDER - 1).values():
    assert abs(probs.sum() - 1) < 1e-12


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("method", NORMALIZED)
def test_a_tiny_text_is_enough(method, size):
  model = NORMALIZED[method](count(TEXT[:size], ORDER, V))
  for length in range(ORDER):
    for probs in distributions(model, length).values():
      assert abs(probs.sum() - 1) < 1e-12


def test_maximum_likelihood_divides_counts(counts):
  model = smoothing.maximum_likelihood(counts, excluded=[BOS])
  for h, probs in distributions(model, ORDER - 1).items():
    if followed(*h):
      expected = [frequency(*h, word) / followed(*h) for word in range(V)]
      np.testing.assert_allclose(probs, expected, rtol=1e-12)


def test_add_k_adds_k(counts):
  model = smoothing.add_k(counts, 0.3)
  for h, probs in distributions(model, ORDER - 1).items():
    expected = [
      (frequency(*h, word) + 0.3) / (followed(*h) + 0.3 * V)
      for word in range(V)
    ]
    np.testing.assert_allclose(probs, expected, rtol=1e-12)


def test_stupid_backoff_divides_counts_and_scales(counts):
  def by_hand(h, word):
    if frequency(*h, word):
      return frequency(*h, word) / followed(*h)
    if not h:
      return 0.4 / V
    return (0.4 if followed(*h) else 1.0) * by_hand(h[1:], word)

  model = smoothing.stupid_backoff(counts, 0.4)
  for h, probs in distributions(model, ORDER - 1).items():
    scores = np.array([by_hand(h, word) for word in range(V)])
    np.testing.assert_allclose(probs, scores / scores.sum(), rtol=1e-12)


def test_kneser_ney_by_hand():
  """Worked out for a b a b a c, of order 2.

  Bigrams: ab 2, ba 2, ac 1, so D = 1 / (1 + 2 · 2) = 1/5. In order 1, a follows
  b and the beginning, b and c follow a: 2, 1, 1, so D = 2 / (2 + 2) = 1/2, and
  of 4 there are 3/2 freed for 3 tokens: p(a) = 3/8 + 1/8, p(b) = 1/8 + 1/8.
  Behind a, of 3 there are 2/5 freed: p(b|a) = 9/15 + 2/15 · 1/4. Behind b, of
  2 there is 1/5 freed. Behind c nothing was seen.
  """
  model = smoothing.kneser_ney(count(np.array([0, 1, 0, 1, 0, 2]), 2, 3))
  expected = [
    [2 / 15 * 1 / 2, 9 / 15 + 2 / 15 * 1 / 4, 4 / 15 + 2 / 15 * 1 / 4],
    [9 / 10 + 1 / 10 * 1 / 2, 1 / 10 * 1 / 4, 1 / 10 * 1 / 4],
    [1 / 2, 1 / 4, 1 / 4],
  ]
  bigrams = distributions(model, 1)
  np.testing.assert_allclose([bigrams[h,] for h in range(3)], expected)
  np.testing.assert_allclose(distributions(model, 0)[()], expected[2])


def test_discounts_by_hand():
  """For n1 = 4, n2 = 3, n3 = 2 and n4 = 1, Y = 4 / (4 + 2 · 3) = 2/5."""
  counts = np.array([0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 9])
  np.testing.assert_allclose(
    smoothing.modified_kneser_ney_discounts(counts),
    [0, 1 - 2 * 2 / 5 * 3 / 4, 2 - 3 * 2 / 5 * 2 / 3, 3 - 4 * 2 / 5 * 1 / 2],
  )
  np.testing.assert_allclose(
    smoothing.kneser_ney_discounts(counts), [0, 2 / 5, 2 / 5, 2 / 5]
  )


@pytest.mark.parametrize("counts", [[], [1, 1, 2], [1, 2, 3, 3, 3, 4]])
def test_discounts_that_counts_do_not_give_fall_back(counts):
  """None or too few; the last would take 2 - 3 · 1/3 · 3 < 0 from 2."""
  found = smoothing.modified_kneser_ney_discounts(np.array(counts, int))
  np.testing.assert_array_equal(found, [0, 0.5, 1, 1.5])


def test_kneser_ney_discounts_fall_back():
  found = smoothing.kneser_ney_discounts(np.array([2, 2]))
  np.testing.assert_array_equal(found, [0, 0.75, 0.75, 0.75])


def test_modified_kneser_ney_is_that_of_kenlm():
  lines = (GOLDEN / "sentences.txt").read_text().splitlines()
  words = sorted({word for line in lines for word in line.split()})
  tokens = ["<unk>", "<bos>", "<eos>", *words]
  texts = [
    [1, *(tokens.index(word) for word in line.split()), 2] for line in lines
  ]
  starts = np.cumsum([0, *map(len, texts)])[:-1]
  counts = count(np.concatenate(texts), 3, len(tokens), starts)
  ours = smoothing.modified_kneser_ney(counts, excluded=[1])
  theirs = arpa.read(GOLDEN / "kenlm.arpa", tokens)
  for own, other in zip(ours, theirs, strict=True):
    for field in ("words", "starts", "suffixes"):
      expected = getattr(other.grams, field)
      np.testing.assert_array_equal(getattr(own.grams, field), expected)
    for field in ("log_probs", "log_weights"):  # KenLM computes in float32
      expected = getattr(other, field)
      np.testing.assert_allclose(getattr(own, field), expected, atol=2e-6)
