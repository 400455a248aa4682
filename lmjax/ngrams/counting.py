# SPDX-License-Identifier: Apache-2.0
"""Counts of n-grams, order by order.

Every position of the text is labelled with the gram that begins there, and a
gram of order k is the label of order k - 1 with one more token. So each order
is one sort of 64-bit keys. The text is sorted in pieces, whose distinct keys
are then merged; labels lie in temporary files, read and written from front to
back, so that text and labels may be larger than memory.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lmjax.errors import UserError
from lmjax.ngrams.grams import Grams, distinct, offsets, unigrams


@dataclasses.dataclass(frozen=True)
class Counts:
  """How often the grams of one order occur.

  Attributes:
    grams: the grams; of order 1 all tokens of the vocabulary, of the others
      those that occur.
    counts: how often each occurs, int64 [N].
    openings: the gram that each document begins with, int32 [documents];
      documents too short to have one are left out.
  """

  grams: Grams
  counts: np.ndarray
  openings: np.ndarray


def count(
  tokens: np.ndarray,
  order: int,
  vocab_size: int,
  document_starts: np.ndarray | Sequence[int] = (0,),
  max_positions: int = 1 << 22,
) -> list[Counts]:
  """Count the grams of orders 1 to `order`.

  Every gram lies within one document, so that the first tokens of a document
  follow shorter contexts than others. By default all is one document, as for a
  model whose contexts run across `<eos>`.

  Memory is that of the grams, some 80 bytes for each gram of one order while
  they are merged, and as much for each of `max_positions`. The temporary files
  hold 8 bytes a token, in the folder that TMPDIR names.

  Args:
    tokens: integers [N] below `vocab_size`, perhaps on disk.
    order: the highest order.
    vocab_size: number of tokens V.
    document_starts: ascending positions of the first tokens of documents, the
      first one 0.
    max_positions: how many positions of the text are in memory at a time.

  Raises:
    UserError: if there is no text, or more grams than 32 bits can number.
  """
  if not len(tokens):
    raise UserError("There is no token to count n-grams of; give more text.")
  starts = np.unique(document_starts)
  starts = starts[starts < len(tokens)]
  counts = np.zeros(vocab_size, np.int64)
  for piece in _pieces(len(tokens), max_positions):
    counts += np.bincount(tokens[piece], minlength=vocab_size)
  orders = [Counts(unigrams(vocab_size), counts, np.int32(tokens[starts]))]
  with tempfile.TemporaryDirectory() as folder:
    labels = tokens
    for k in range(2, order + 1):
      path = Path(folder, str(k % 2))  # no labels but the last are read again
      longer = np.memmap(path, np.int32, "w+", shape=len(tokens))
      shorter = orders[-1].grams
      orders.append(
        _extend(tokens, starts, shorter, labels, longer, k, max_positions)
      )
      labels = longer
  return orders


def _extend(
  tokens: np.ndarray,
  starts: np.ndarray,
  shorter: Grams,
  labels: np.ndarray,
  longer: np.ndarray,
  k: int,
  max_positions: int,
) -> Counts:
  """Count the grams of order k.

  Args:
    tokens: the text.
    starts: where its documents begin.
    shorter: the grams of order k - 1.
    labels: the place in `shorter` of the gram that begins at each token, −1
      where its document ends too early.
    longer: where the labels of order k are written.
    k: the order.
    max_positions: how many labels are in memory at a time.
  """
  size = max(len(tokens) - k + 1, 0)
  pieces = list(_pieces(size, max_positions))
  longer[size:] = -1
  empty = np.zeros(0, np.int64)
  keys, counts = [empty], [empty]
  suffixes = [np.zeros(0, np.int32)]
  for piece in pieces:
    parents = np.asarray(labels[piece.start : piece.stop + 1], np.int64)
    words = tokens[piece.start + k - 1 : piece.stop + k - 1]
    whole = parents[:-1] >= 0
    ends = starts - (k - 1) - piece.start  # their last token would begin one
    whole[ends[(ends >= 0) & (ends < len(whole))]] = False
    positions = np.flatnonzero(whole)
    found = (parents[positions] << 32) | words[positions]
    first, places, numbers = distinct([found])
    keys.append(found[first])
    suffixes.append(parents[positions[first] + 1].astype(np.int32))
    counts.append(numbers)
    own = np.full(len(whole), -1, np.int32)
    own[positions] = places
    longer[piece] = own
  lengths = [len(part) for part in keys[1:]]
  keys = np.concatenate(keys)
  suffixes = np.concatenate(suffixes)
  counts = np.concatenate(counts)
  if len(keys) > np.iinfo(np.int32).max:
    raise UserError(
      f"There are more n-grams of order {k} than 32 bits can number; choose a "
      "lower order or less text."
    )
  first, places, _ = distinct([keys])
  begin = 0
  for piece, length in zip(pieces, lengths, strict=True):
    merged = np.append(places[begin : begin + length], np.int32(-1))
    longer[piece] = merged[longer[piece]]
    begin += length
  keys = keys[first]
  grams = Grams(
    (keys & 0xFFFFFFFF).astype(np.int32),
    offsets(keys >> 32, len(shorter)),
    suffixes[first],
  )
  total = np.bincount(places, counts).astype(np.int64)
  openings = np.asarray(longer[starts])
  return Counts(grams, total, openings[openings >= 0])


def _pieces(size: int, most: int) -> Iterator[slice]:
  """Cut a range into pieces of at most so many."""
  for start in range(0, size, most):
    yield slice(start, min(start + most, size))
