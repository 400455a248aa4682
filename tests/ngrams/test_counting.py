# SPDX-License-Identifier: Apache-2.0
import collections
import tempfile
import tracemalloc

import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.ngrams import counting
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


@pytest.mark.parametrize("order", [ORDER, 7])
@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("starts", [[0], DOCUMENTS])
def test_counts_are_those_of_a_counter(starts, block, order):
  orders = count(TEXT.astype(np.uint8), order, V, starts, block)
  assert len(orders) == order
  grams = [level.grams for level in orders]
  for k, level in enumerate(orders, 1):
    counts, openings = by_hand(TEXT, starts, k)
    if k == 1:
      counts.update({(word,): 0 for word in range(V)})
    rows = spell(grams[:k], 0, len(level.grams))
    found = list(map(tuple, rows.tolist()))
    assert found == sorted(counts)
    np.testing.assert_array_equal(level.counts, [counts[row] for row in found])
    np.testing.assert_array_equal(
      level.openings, [openings[row] for row in found]
    )


@pytest.mark.parametrize("block", [100, 701])
def test_many_blocks_count_as_one(block):
  rng = np.random.default_rng(1)
  text = rng.integers(0, 50, 2000) * rng.integers(0, 2, 2000)
  starts = np.sort(rng.integers(0, 2000, 70))
  starts[0] = 0
  whole = count(text, 5, 50, starts, len(text))
  for level, other in zip(
    count(text, 5, 50, starts, block), whole, strict=True
  ):
    for field in ("words", "starts", "suffixes"):
      array, wanted = getattr(level.grams, field), getattr(other.grams, field)
      assert array.dtype == wanted.dtype == np.int32
      np.testing.assert_array_equal(array, wanted)
    for field in ("counts", "openings"):
      array, wanted = getattr(level, field), getattr(other, field)
      assert array.dtype == wanted.dtype == np.int64
      np.testing.assert_array_equal(array, wanted)


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
  assert [level.openings.sum() for level in orders] == [
    k < size for k in range(ORDER)
  ]


def test_no_text_is_an_error():
  with pytest.raises(UserError, match="no token"):
    count(TEXT[:0], ORDER, V)


@pytest.fixture(scope="module")
def text_on_disk(tmp_path_factory):
  """Text of few bigrams, most of which occur in any block of 1024 tokens."""
  path = tmp_path_factory.mktemp("text") / "tokens.bin"
  text = np.random.default_rng(1).integers(0, 32, 1 << 16)
  text.astype(np.uint8).tofile(path)
  return np.memmap(path, np.uint8, "r")


def test_memory_is_that_of_a_block(text_on_disk):
  """The bigrams of all blocks together would take 0.8 MB at the least."""
  tracemalloc.start()
  (_, bigrams) = count(text_on_disk, 2, 32, block=1 << 10)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert bigrams.counts.sum() == len(text_on_disk) - 1
  assert peak < 1 << 19


def test_only_distinct_grams_need_numbers(text_on_disk, monkeypatch):
  monkeypatch.setattr(counting, "MAX_NGRAMS", 32**2)
  (_, bigrams) = count(text_on_disk, 2, 32, block=1 << 10)
  assert len(bigrams.grams) == 32**2
  monkeypatch.setattr(counting, "MAX_NGRAMS", 32**2 - 1)
  with pytest.raises(UserError, match="more n-grams of order 2 than"):
    count(text_on_disk, 2, 32, block=1 << 10)


def test_a_full_disk_is_an_error(monkeypatch):
  monkeypatch.setattr(
    tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b")
  )
  with pytest.raises(UserError, match="No space left on device; set TMPDIR"):
    count(TEXT, ORDER, V)
