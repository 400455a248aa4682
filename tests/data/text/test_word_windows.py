# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmjax.data.text.batching import OrderedSequences, ShuffledSequences
from lmjax.data.text.stream import TokenStream
from lmjax.data.text.word_windows import (
  WordWindows,
  keep_probabilities,
  noise_distribution,
)
from lmjax.errors import UserError
from tests.helpers.frequencies import assert_frequencies

V, B, W = 11, 4, 25
IS_WORD = np.arange(V) >= 4


class Stream(TokenStream):
  """A stream in memory: skewed words, and documents of uneven length."""

  tokens = np.random.default_rng(0).geometric(0.3, 1003).clip(max=9) + 1
  starts = np.array([0, 10, 31, 32, 400])

  def __init__(self):
    super().__init__(None, len(self.tokens), len(self.starts), "int64")


STREAM = Stream()
COUNTS = STREAM.counts(V)


def make(
  rows=ShuffledSequences, seed=0, subsample=0.02, process=(0, 1), **sizes
):
  sizes = dict(seq_len=W, batch_size=B) | sizes
  index, count = process
  rows = rows(
    STREAM, seed=seed, process_index=index, process_count=count, **sizes
  )
  return WordWindows(
    rows,
    COUNTS,
    IS_WORD,
    context_size=3,
    subsample=subsample,
    num_sampled=6,
    noise_exponent=0.5,
  )


def test_counts_are_those_of_the_text():
  np.testing.assert_array_equal(COUNTS, np.bincount(STREAM.tokens, minlength=V))


def test_frequent_words_are_left_out_by_their_frequency():
  """√(t / f) of the paper, at most 1; what is no word is not there at all."""
  words = np.where(IS_WORD, COUNTS, 0)
  frequency = words / words.sum()
  keep_V = keep_probabilities(words, 0.02)
  for token in range(V):
    f = frequency[token]
    expected = min(1.0, (0.02 / f) ** 0.5) if f else 0.0
    assert keep_V[token] == pytest.approx(expected)
  batches, found, seen = make(batch_size=50), np.zeros(V), np.zeros(V)
  assert batches.width < W  # rows are narrower by what is left out
  for index in range(60):
    batch = batches[index]
    kept = batch["inputs"][batch["reach"] > 0]
    found += np.bincount(kept, minlength=V)
    text = batches._rows[index]["inputs"]
    seen += np.bincount(text.reshape(-1), minlength=V)
  expected = seen * keep_V
  variance = np.maximum(expected * (1 - keep_V), 1e-9)
  sampled = (keep_V > 0) & (keep_V < 1)
  assert sampled.sum() >= 5
  scores = (found - expected)[sampled] / np.sqrt(variance[sampled])
  assert (scores**2).sum() < sampled.sum() + 4 * np.sqrt(2 * sampled.sum())
  np.testing.assert_array_equal(found[keep_V == 1], seen[keep_V == 1])
  np.testing.assert_array_equal(found[keep_V == 0], 0)


def test_words_of_another_text_are_all_looked_at_and_counted_once():
  """A text of words that are rare in the training text keeps more of them."""
  counts = COUNTS[::-1].copy()
  rows = OrderedSequences(STREAM, W, B)
  batches = WordWindows(rows, counts, IS_WORD, 3, 1e-3, 6, 0.5)
  whole = [batches[index] for index in range(len(batches))]
  kept = sum((batch["reach"] > 0).sum() for batch in whole)
  expected = COUNTS @ batches.keep_V
  assert abs(kept - expected) < 4 * np.sqrt(expected)
  words = sum(batch["words"].sum() for batch in whole)
  assert words == pytest.approx(STREAM.num_tokens - 1)


def test_what_does_not_fit_is_no_part_of_the_batch():
  batches = make(rows=OrderedSequences, subsample=0.0)
  plain = batches[1]
  batches.width = 11
  short = batches[1]
  assert (short["reach"] > 0).all()
  size = short["inputs"].size
  np.testing.assert_array_equal(
    short["inputs"].reshape(-1), plain["inputs"].reshape(-1)[:size]
  )
  text = batches._rows[1]["inputs"].reshape(-1)
  end = np.flatnonzero(IS_WORD[text])[size]
  assert short["words"].sum() == pytest.approx(end)


def test_negatives_and_reaches_are_drawn_by_their_distributions():
  batches = make(batch_size=50)
  sampled = [batches[index] for index in range(60)]
  negatives = np.concatenate(
    [batch["negatives"].reshape(-1) for batch in sampled]
  )
  weights = np.where(IS_WORD, COUNTS, 0) ** 0.5
  expected = len(negatives) * weights / weights.sum()
  np.testing.assert_allclose(
    noise_distribution(np.where(IS_WORD, COUNTS, 0), 0.5) * len(negatives),
    expected,
  )
  assert_frequencies(
    np.bincount(negatives, minlength=V), weights / weights.sum()
  )
  reach = np.concatenate([batch["reach"].reshape(-1) for batch in sampled])
  reach = np.bincount(reach[reach > 0], minlength=5)
  assert_frequencies(reach, np.array([0, 1, 1, 1, 0]) / 3)


@pytest.mark.parametrize("rows", [ShuffledSequences, OrderedSequences])
def test_contexts_are_the_neighbours_in_window_and_document(rows):
  """Without subsampling: the pairs within reach 3, found one by one.

  Positions go on from row to row of a batch, so pairs that the end of a row
  cuts are found as well.
  """
  batches = make(rows, subsample=0.0)
  for index in (0, 9, 10):
    text, batch, expected = batches._rows[index], batches[index], []
    for row in range(B):
      document = np.cumsum(text["document_starts"][row])
      words = [
        (token, document[t])
        for t, token in enumerate(text["inputs"][row])
        if IS_WORD[token] and text["weights"][row, t] > 0
      ]
      expected += [
        (a, b)
        for i, (a, first) in enumerate(words)
        for j, (b, second) in enumerate(words)
        if 0 < abs(i - j) <= 3 and first == second
      ]
    positions, inputs = batch["positions"].reshape(-1), batch["inputs"]
    apart = np.abs(positions[:, None] - positions)
    pairs = np.nonzero((apart > 0) & (apart <= 3))
    found = list(zip(*inputs.reshape(-1)[np.array(pairs)], strict=True))
    assert sorted(found) == sorted(expected)
    assert batch["words"].sum() == pytest.approx((text["weights"] > 0).sum())


def test_a_batch_is_a_function_of_seed_and_number_alone():
  one, two = make(), make()
  two[7]
  for name, field in one[3].items():
    np.testing.assert_array_equal(field, two[3][name])
    assert not np.array_equal(field, one[4][name]) or name == "words"
    assert not np.array_equal(field, make(seed=1)[3][name]) or name == "words"


def test_processes_hold_slices_of_the_same_batch():
  whole = make()[5]
  parts = [make(process=(index, 2))[5] for index in range(2)]
  for name, field in whole.items():
    joined = np.concatenate([part[name] for part in parts])
    np.testing.assert_array_equal(joined, field)


def test_every_word_of_a_split_comes_once():
  batches = make(OrderedSequences, subsample=0.0)
  found = np.zeros(V, int)
  for index in range(len(batches)):
    batch = batches[index]
    kept = batch["inputs"][batch["reach"] > 0]
    found += np.bincount(kept, minlength=V)
  last = STREAM.tokens[-1]  # is never an input
  expected = np.where(IS_WORD, COUNTS, 0) - np.eye(V, dtype=int)[last]
  np.testing.assert_array_equal(found, expected)


def test_a_vocabulary_without_words_is_a_sentence():
  with pytest.raises(UserError, match="lower data.min_freq"):
    rows = ShuffledSequences(STREAM, W, B)
    WordWindows(rows, COUNTS, np.zeros(V, bool), 3, 0.0, 6, 0.5)
