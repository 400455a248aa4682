# SPDX-License-Identifier: Apache-2.0
import collections
import tracemalloc

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.ngrams.counting import count
from lmjax.ngrams.grams import spell

V, ORDER = 5, 4
TEXT = np.random.default_rng(0).integers(0, V - 1, 61)  # V - 1 never occurs
DOCUMENTS = [0, 13, 13, 14, 40, 60, 61]  # an empty one within and at the end


def by_hand(tokens, starts, k):
  ends = [*starts[1:], len(tokens)]
  documents = [
    tokens[a:b].tolist() for a, b in zip(starts, ends, strict=True) if a < b
  ]
  counts = collections.Counter(
    tuple(document[i : i + k])
    for document in documents
    for i in range(len(document) - k + 1)
  )
  openings = collections.Counter(
    tuple(document[:k]) for document in documents if len(document) >= k
  )
  return counts, openings


@pytest.mark.parametrize("max_positions", [1, 7, 1000])
@pytest.mark.parametrize("starts", [[0], DOCUMENTS])
def test_counts_are_those_of_a_counter(starts, max_positions):
  orders = count(TEXT.astype(np.uint8), ORDER, V, starts, max_positions)
  grams = [level.grams for level in orders]
  for k, level in enumerate(orders, 1):
    counts, openings = by_hand(TEXT, starts, k)
    if k == 1:
      counts.update({(word,): 0 for word in range(V)})
    rows = spell(grams[:k], 0, len(level.grams))
    found = list(map(tuple, rows.tolist()))
    assert found == sorted(counts)
    np.testing.assert_array_equal(level.counts, [counts[row] for row in found])
    assert openings == collections.Counter(
      found[place] for place in level.openings
    )


def test_a_suffix_lacks_the_first_token():
  grams = [level.grams for level in count(TEXT, ORDER, V, DOCUMENTS)]
  for k in range(2, ORDER + 1):
    rows = spell(grams[:k], 0, len(grams[k - 1]))
    suffixes = spell(grams[: k - 1], 0, len(grams[k - 2]))
    np.testing.assert_array_equal(suffixes[grams[k - 1].suffixes], rows[:, 1:])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_text_may_be_shorter_than_the_order(size):
  orders = count(TEXT[:size], ORDER, V)
  found = [int(level.counts.sum()) for level in orders]
  assert found == [max(size - k, 0) for k in range(ORDER)]
  assert [len(level.openings) for level in orders] == [
    k < size for k in range(ORDER)
  ]


def test_no_text_is_an_error():
  with pytest.raises(UserError, match="no token"):
    count(TEXT[:0], ORDER, V)


def test_memory_is_that_of_a_piece(tmp_path):
  text = np.random.default_rng(1).integers(0, 3, 1 << 19).astype(np.uint8)
  text.tofile(tmp_path / "tokens.bin")
  tokens = np.memmap(tmp_path / "tokens.bin", np.uint8, "r")
  tracemalloc.start()
  orders = count(tokens, 3, 3, max_positions=1 << 12)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert orders[-1].counts.sum() == len(text) - 2
  assert peak < len(text)  # a place in every file takes 4 bytes
