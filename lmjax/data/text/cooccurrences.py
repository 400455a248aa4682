# SPDX-License-Identifier: Apache-2.0
"""How often words occur near each other, counted on disk; batches of counts.

The counts of Pennington et al. 2014 (GloVe): two words of one document at a
distance d of at most `context_size` words count 1 / d, in both directions.
Counting needs memory for one block of pairs, whatever the size of the corpus:
each block leaves a sorted run on disk, and the runs are merged range by
range.

A folder of counts holds entries.bin: ENTRY after ENTRY, sorted by word and
context word, without zeros.
"""

import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tqdm

from lmjax.data.atomic_dir import write_atomically
from lmjax.data.shuffle import mix, permute
from lmjax.data.sources.text_sources import digest
from lmjax.data.text.batching import Rows
from lmjax.data.text.stream import TokenStream
from lmjax.errors import UserError

FORMAT = 1  # raise it when the layout of the folder changes
BLOCK = 1 << 22  # pairs that are counted or merged at once, some 200 MB

ENTRY = np.dtype(
  [("word", np.int32), ("context", np.int32), ("count", np.float32)]
)
_PAIR = np.dtype([("key", np.uint64), ("count", np.float64)])


def open_cooccurrences(
  stream: TokenStream,
  is_word_V: np.ndarray,
  context_size: int,
  cache_dir: Path,
  block: int = BLOCK,
) -> np.ndarray:
  """Open the counts of a stream, counting first if that was never done.

  Args:
    stream: the text.
    is_word_V: false for tokens that are no words; they are taken out first.
    context_size: the largest distance that counts.
    cache_dir: folder that holds counts.
    block: pairs that are counted or merged at once.

  Returns:
    The entries, mapped from disk.

  Raises:
    UserError: if no two words of the text are near each other.
  """
  name = digest(json.dumps([FORMAT, stream.folder.name, context_size]).encode())
  folder = cache_dir / "cooccurrences" / name
  if not folder.exists():
    pairs = _pairs(
      stream, is_word_V, context_size, max(1, block // (2 * context_size))
    )
    write_atomically(
      folder, lambda partial: _count(pairs, len(is_word_V), partial, block)
    )
  if not (folder / "entries.bin").stat().st_size:
    raise UserError(
      "no two words of the text that are in the vocabulary are near each "
      "other; lower data.min_freq or raise data.vocab_size."
    )
  return np.memmap(folder / "entries.bin", ENTRY, "r")


def _pairs(
  stream: TokenStream, is_word_V: np.ndarray, context_size: int, size: int
) -> Iterator[np.ndarray]:
  """List the pairs of the text, of `size` tokens at a time."""
  words, documents = np.zeros((2, 0), np.int64)
  for start in tqdm.trange(
    0, stream.num_tokens, size, desc="count", leave=False, disable=None
  ):
    tokens = np.asarray(stream.tokens[start : start + size], np.int64)
    within = np.flatnonzero(is_word_V[tokens])
    found = np.searchsorted(stream.starts, start + within, "right")
    old = min(len(words), context_size)  # of the block before, within reach
    words = np.append(words[len(words) - old :], tokens[within])
    documents = np.append(documents[len(documents) - old :], found)
    pairs = [np.zeros(0, _PAIR)]
    for distance in range(1, context_size + 1):
      last = np.arange(max(old, distance), len(words))
      last = last[documents[last] == documents[last - distance]]
      both = np.zeros((2, len(last)), _PAIR)
      both["count"] = 1.0 / distance
      both["key"][0] = words[last] * len(is_word_V) + words[last - distance]
      both["key"][1] = words[last - distance] * len(is_word_V) + words[last]
      pairs.append(both.reshape(-1))
    yield np.concatenate(pairs)


def _add_up(pairs: np.ndarray) -> np.ndarray:
  """Sort pairs by key and add up those of the same."""
  if not len(pairs):
    return pairs
  pairs = pairs[np.argsort(pairs["key"], kind="stable")]
  firsts = np.flatnonzero(np.diff(pairs["key"], prepend=~pairs["key"][:1]))
  sums = pairs[firsts]
  sums["count"] = np.add.reduceat(pairs["count"], firsts)
  return sums


def _count(
  blocks: Iterator[np.ndarray], vocab_size: int, folder: Path, block: int
) -> None:
  """Write a sorted run for each block of pairs, then merge the runs."""
  folder.mkdir()
  with tempfile.TemporaryDirectory(dir=folder, prefix="runs-") as place:
    path, ends = Path(place, "pairs.bin"), []
    with open(path, "wb") as file:
      for pairs in blocks:
        _add_up(pairs).tofile(file)
        ends.append(file.tell() // _PAIR.itemsize)
    # One map for all runs: a process may have a thousand files open or so.
    all_pairs = np.memmap(path, _PAIR, "r") if any(ends) else np.zeros(0, _PAIR)
    runs = np.split(all_pairs, ends[:-1])
    with open(folder / "entries.bin", "wb") as file:
      for sums in _merge(runs, block):
        entries = np.zeros(len(sums), ENTRY)
        entries["word"], entries["context"] = divmod(sums["key"], vocab_size)
        entries["count"] = sums["count"]
        entries.tofile(file)


def _merge(runs: Sequence[np.ndarray], block: int) -> Iterator[np.ndarray]:
  """Add up sorted runs, in ranges of keys with some `block` pairs each."""
  # Every step-th key of each run, so that as many of all of these samples as
  # there are runs have about a block of pairs between them.
  step = max(1, block // len(runs))
  samples = np.sort(np.concatenate([run["key"][::step] for run in runs]))
  bounds = np.unique(samples[:: len(runs)])[1:]
  cuts = [[0, *np.searchsorted(run["key"], bounds), len(run)] for run in runs]
  for starts, stops in itertools.pairwise(zip(*cuts, strict=True)):
    parts = zip(runs, starts, stops, strict=True)
    yield _add_up(np.concatenate([run[a:b] for run, a, b in parts]))


class Entries:
  """Entries of a matrix of counts as batches, in a new order every epoch.

  Fields of a batch, each [rows, T]:

      inputs  int32    words
      targets int32    context words
      counts  float32  how often they occur together; 0 on padding

  Args:
    entries: the matrix.
    rows: defines the batch size, the seed and this process's rows.
    shuffled: whether the order changes, without an end; else every entry comes
      once, from front to back.
  """

  def __init__(self, entries: np.ndarray, rows: Rows, shuffled: bool):
    self.batch_size = rows.batch_size
    self._entries, self._shuffled = entries, shuffled
    self._local, self._seed = rows.local_rows(), rows.seed
    self._width = rows.seq_len

  def __len__(self) -> int:
    """Return the number of batches that hold every entry once."""
    return -(-len(self._entries) // (self.batch_size * self._width))

  def __getitem__(self, index: int) -> dict:
    """Return this process's rows of batch `index`."""
    row = index * self.batch_size + self._local
    number = row[:, None] * self._width + np.arange(self._width)
    size = len(self._entries)
    counts = number < size
    if self._shuffled:
      epoch, number = np.divmod(number, size)
      key = mix(mix(np.uint64(self._seed)) ^ epoch.astype(np.uint64))
      number, counts = permute(number, size, key), True
    found = self._entries[np.minimum(number, size - 1)]
    return dict(
      inputs=found["word"],
      targets=found["context"],
      counts=np.where(counts, found["count"], np.float32(0)),
    )
