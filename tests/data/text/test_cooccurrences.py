# SPDX-License-Identifier: Apache-2.0
import collections

import numpy as np
import pytest

from lmjax.data.text.batching import OrderedSequences
from lmjax.data.text.cooccurrences import Entries, open_cooccurrences
from lmjax.data.text.stream import TokenStream
from lmjax.errors import UserError

V, B, T, CONTEXT = 11, 2, 7, 3
IS_WORD = np.arange(V) >= 4


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
  """A stream on disk, with tokens that are no words and short documents."""
  folder = tmp_path_factory.mktemp("stream")
  tokens = np.random.default_rng(0).integers(2, V, 211).astype(np.uint8)
  tokens.tofile(folder / "tokens.bin")
  np.save(folder / "starts.npy", np.array([0, 1, 3, 40, 90, 200]))
  return TokenStream(folder, len(tokens), 6, "uint8")


def by_hand(stream):
  """Count pair by pair, document by document."""
  counts = collections.Counter()
  ends = [*stream.starts[1:], stream.num_tokens]
  for start, end in zip(stream.starts, ends, strict=True):
    words = [int(t) for t in stream.tokens[start:end] if IS_WORD[t]]
    for i, a in enumerate(words):
      for j, b in enumerate(words):
        if 0 < abs(i - j) <= CONTEXT:
          counts[a, b] += 1 / abs(i - j)
  return counts


def entries_of(stream, folder, block):
  return open_cooccurrences(stream, IS_WORD, CONTEXT, folder, block)


@pytest.mark.parametrize("block", [6, 60, 10**6])
def test_counts_equal_those_made_pair_by_pair(stream, tmp_path, block):
  """Blocks of one word, of some, and of all the text."""
  entries = entries_of(stream, tmp_path, block)
  expected = by_hand(stream)
  pairs = list(zip(entries["word"], entries["context"], strict=True))
  assert pairs == sorted(expected)
  np.testing.assert_allclose(
    entries["count"], [expected[pair] for pair in pairs], rtol=1e-6
  )


def test_counts_are_made_once_and_leave_nothing_else(stream, tmp_path):
  entries_of(stream, tmp_path, 60)
  files = [p for p in tmp_path.rglob("*") if p.is_file()]
  assert [p.name for p in files] == ["entries.bin"]
  before = files[0].stat().st_mtime_ns
  entries_of(stream, tmp_path, 7)
  assert files[0].stat().st_mtime_ns == before
  open_cooccurrences(stream, IS_WORD, CONTEXT + 1, tmp_path)
  assert len(list(tmp_path.glob("cooccurrences/*"))) == 2


def test_a_text_without_pairs_is_a_sentence(stream, tmp_path):
  with pytest.raises(UserError, match="no two words"):
    open_cooccurrences(stream, np.zeros(V, bool), CONTEXT, tmp_path)


def batches_of(stream, folder, shuffled, process=(0, 1)):
  index, count = process
  rows = OrderedSequences(
    stream, T, B, seed=3, process_index=index, process_count=count
  )
  return Entries(entries_of(stream, folder, 60), rows, shuffled)


def seen(batches, indices):
  """List the entries of some batches, padding left out, in order."""
  found = []
  for index in indices:
    batch = batches[index]
    counts = batch["counts"]
    words, contexts = batch["inputs"], batch["targets"]
    entries = zip(words.flat, contexts.flat, counts.flat, strict=True)
    found += [tuple(entry) for entry in entries if entry[2]]
  return found


def test_every_entry_comes_once_an_epoch(stream, tmp_path):
  entries = entries_of(stream, tmp_path, 60)
  all_entries = [tuple(entry) for entry in entries.tolist()]
  batches = batches_of(stream, tmp_path, shuffled=False)
  assert seen(batches, range(len(batches))) == all_entries
  batches = batches_of(stream, tmp_path, shuffled=True)
  found = seen(batches, range(3 * len(batches)))
  size = len(entries)
  first, second = found[:size], found[size : 2 * size]
  assert sorted(first) == sorted(second) == sorted(all_entries)
  assert first != second and first != all_entries


def test_processes_hold_slices_of_the_same_batch(stream, tmp_path):
  whole = batches_of(stream, tmp_path, shuffled=True)[2]
  parts = [
    batches_of(stream, tmp_path, shuffled=True, process=(index, 2))[2]
    for index in range(2)
  ]
  for name, field in whole.items():
    joined = np.concatenate([part[name] for part in parts])
    np.testing.assert_array_equal(joined, field)
