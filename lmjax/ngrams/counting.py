# SPDX-License-Identifier: Apache-2.0
"""Counts of n-grams, order by order.

Every position of the text is labeled with the n-gram that starts there, and an
n-gram of order k is a label of order k - 1 with one more token. So each order
is one sort of 64-bit keys. It is made a block of the text at a time; the
distinct keys of each block, and the labels, lie in temporary files. The keys
are merged range by range, and what a label became is looked up again block by
block. So only the result must fit into memory, not the text.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from lmjax.errors import UserError
from lmjax.ngrams.disk_array import DiskArray
from lmjax.ngrams.grams import Grams, distinct, unigrams
from lmjax.ngrams.runs import ENTRY, Runs

BLOCK = 1 << 22  # positions counted, or n-grams merged, at once
MAX_NGRAMS = np.iinfo(np.int32).max  # of one order, which are int32 indices


@dataclasses.dataclass(frozen=True)
class Counts:
  """How often the grams of one order occur.

  Attributes:
    grams: the grams; of order 1 all tokens of the vocabulary, of the others
      those that occur.
    counts: number of occurrences of each, int64 [N].
    openings: number of documents that start with each, int64 [N].
  """

  grams: Grams
  counts: np.ndarray
  openings: np.ndarray


def count(
  tokens: np.ndarray,
  order: int,
  vocab_size: int,
  document_starts: np.ndarray | Sequence[int] = (0,),
  block: int = BLOCK,
) -> list[Counts]:
  """Count the grams of orders 1 to `order`.

  Every gram lies within one document, so that the first tokens of a document
  follow shorter contexts than others. By default all is one document, as for a
  model whose contexts run across `<eos>`.

  Memory is that of the result, once more that of its last order, and some 100
  bytes for each of a block. The temporary files, in the folder that TMPDIR
  names, hold 8 bytes a token and up to 20 more: for each gram of each block.

  Args:
    tokens: integers [N] below `vocab_size`, perhaps on disk.
    order: the highest order.
    vocab_size: number of tokens V.
    document_starts: ascending positions of the first tokens of documents, the
      first one 0; perhaps on disk.
    block: positions of the text, or grams to merge, that are in memory at a
      time.

  Raises:
    UserError: if there is no text, more grams than 32 bits can number, or no
      room for the temporary files.
  """
  if not len(tokens):
    raise UserError("There is no token to count n-grams of; give more text.")
  starts = np.asarray(document_starts)
  counts, openings = np.zeros((2, vocab_size), np.int64)
  for piece in _blocks(len(tokens), block):
    words = tokens[piece]
    counts += np.bincount(words, minlength=vocab_size)
    begins = words[_starts_within(starts, piece)]
    openings += np.bincount(begins, minlength=vocab_size)
  orders = [Counts(unigrams(vocab_size), counts, openings)]
  try:
    with DiskArray(np.int32) as even, DiskArray(np.int32) as odd:
      labels = tokens
      for k in range(2, order + 1):
        longer = odd if k % 2 else even  # older labels are not read again
        shorter = orders[-1].grams
        orders.append(
          _extend(tokens, starts, shorter, labels, longer, k, block)
        )
        labels = longer
  except OSError as error:
    raise UserError(
      f"n-grams cannot be counted in {tempfile.gettempdir()}: {error}; set "
      "TMPDIR to a folder with more room."
    ) from error
  return orders


def _extend(
  tokens: np.ndarray,
  starts: np.ndarray,
  shorter: Grams,
  labels: np.ndarray | DiskArray,
  longer: DiskArray,
  k: int,
  block: int,
) -> Counts:
  """Count the grams of order k.

  Args:
    tokens: the text.
    starts: first tokens of its documents.
    shorter: the grams of order k - 1.
    labels: index in `shorter` of the n-gram that starts at each position; −1 if
      its document ends too early.
    longer: where the labels of order k are written.
    k: the order.
    block: how many positions or grams are in memory at a time.
  """
  pieces = list(_blocks(max(len(tokens) - k + 1, 0), block))
  with Runs(len(pieces), block) as runs:
    for piece in pieces:
      parents = np.asarray(labels[piece.start : piece.stop + 1], np.int64)
      last = slice(piece.start + k - 1, piece.stop + k - 1)
      whole = parents[:-1] >= 0
      whole[_starts_within(starts, last)] = False
      positions = np.flatnonzero(whole)
      keys = (parents[positions] << 32) | tokens[last][positions]
      first, places, numbers = distinct([keys])
      run = np.empty(len(first), ENTRY)
      run["key"], run["count"] = keys[first], numbers
      run["suffix"] = parents[positions[first] + 1]
      runs.append(run)
      own = np.full(len(whole), -1, np.int32)
      own[positions] = places
      longer[piece] = own
    grams, counts = _merge(runs, len(shorter), k)
    openings = np.zeros(len(grams), np.int64)
    for number, piece in enumerate(pieces):
      own = np.append(runs.places(number), np.int32(-1))[longer[piece]]
      longer[piece] = own
      begins = own[_starts_within(starts, piece)]
      np.add.at(openings, begins[begins >= 0], 1)
  return Counts(grams, counts, openings)


def _merge(runs: Runs, num_parents: int, k: int) -> tuple[Grams, np.ndarray]:
  """Merge the grams of order k, and their counts."""
  none = np.zeros(0, np.int32)
  words, suffixes, counts = [none], [none], [np.zeros(0, np.int64)]
  ends, size = np.zeros(num_parents + 1, np.int64), 0
  for keys, own_suffixes, own_counts in runs.merge():
    size += len(keys)
    if size > MAX_NGRAMS:
      raise UserError(
        f"There are more n-grams of order {k} than 32 bits can number; choose "
        "a lower order or less text."
      )
    first = 1 + int(keys[0] >> 32)
    children = np.bincount((keys >> 32) - (keys[0] >> 32))
    ends[first : first + len(children)] += children
    words.append(keys.astype(np.int32))  # the lower half
    suffixes.append(own_suffixes)
    counts.append(own_counts)
  starts = np.cumsum(ends).astype(np.int32)
  grams = Grams(np.concatenate(words), starts, np.concatenate(suffixes))
  return grams, np.concatenate(counts)


def _starts_within(starts: np.ndarray, piece: slice) -> np.ndarray:
  """Return which positions of a part of the text start a document."""
  low, high = np.searchsorted(starts, [piece.start, piece.stop])
  return np.unique(starts[low:high]) - piece.start


def _blocks(size: int, block: int) -> Iterator[slice]:
  """Split a range into blocks."""
  for start in range(0, size, block):
    yield slice(start, min(start + block, size))
