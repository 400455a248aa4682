# SPDX-License-Identifier: Apache-2.0
"""Sets of n-grams, as a trie in sorted arrays.

The grams of an order are sorted by their tokens, and a gram is known by its
place among them. So the grams that continue one of the order below, its
children, lie side by side, and (place of the parent, last token) is a key of 64
bits at any order.

With every gram come its parent (the gram without its last token) and its
suffix (the gram without its first), and so all that lies within it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Grams:
  """All grams of one order k.

  For the tokens 0 1 0 2, the grams of order 2 are (0, 1), (0, 2) and (1, 0):

      words     1  2  0    the last tokens
      starts    0  2  3  3    0 has children 0 and 1, 1 has child 2, 2 has none
      suffixes  1  2  0    the places of (1), (2) and (0) in order 1

  Attributes:
    words: last token of each, int32 [N], ascending among the children of one.
    starts: start of the children of each n-gram of order k - 1, and the end of
      the last, int32 [parents + 1]. The parent of order 1 is the empty n-gram.
    suffixes: place in order k - 1 of each without its first token, int32 [N].
      In order 1 it is 0, the place of the empty gram.
  """

  words: np.ndarray
  starts: np.ndarray
  suffixes: np.ndarray

  def __len__(self) -> int:
    """Return the number N of grams."""
    return len(self.words)

  def of_parents(self, values: np.ndarray) -> np.ndarray:
    """Give each gram the value of its parent, [parents] → [N]."""
    return np.repeat(values, np.diff(self.starts))

  def sums(self, values: np.ndarray) -> np.ndarray:
    """Add up over the children of each parent, integer [N] → [parents]."""
    ends = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return np.diff(ends[self.starts])

  def find(self, parents: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return the places of grams, −1 for those that are not there.

    Args:
      parents: places in order k - 1, or −1 for what is not there.
      words: the last tokens.
    """
    own = np.arange(len(self.starts) - 1, dtype=np.int64)
    keys = (self.of_parents(own) << 32) | self.words
    wanted = (np.asarray(parents, np.int64) << 32) | words
    places = np.searchsorted(keys, wanted)
    return np.where(np.append(keys, -1)[places] == wanted, places, -1)


def unigrams(vocab_size: int) -> Grams:
  """Return order 1: every token of the vocabulary, seen or not."""
  words = np.arange(vocab_size, dtype=np.int32)
  return Grams(words, np.array([0, vocab_size], np.int32), np.zeros_like(words))


def spell(orders: Sequence[Grams], low: int, high: int) -> np.ndarray:
  """Return the tokens of grams `low` to `high` of the last of `orders`.

  Returns:
    int32 [high - low, len(orders)].
  """
  columns, places = [], np.arange(low, high)
  for grams in reversed(orders):
    columns.append(grams.words[places])
    places = np.searchsorted(grams.starts, places, side="right") - 1
  return np.stack(columns[::-1], axis=1)


def trie(
  rows: Sequence[np.ndarray], vocab_size: int
) -> tuple[list[Grams], list[np.ndarray]]:
  """Sort grams, and add those that lie within them.

  Args:
    rows: tokens of the grams of each order, int32 [N, k].
    vocab_size: number of tokens V, all of which are in order 1.

  Returns:
    The grams of each order; the places of the rows among them.
  """
  every_token = np.arange(vocab_size, dtype=np.int32)[:, None]
  rows = [np.concatenate([every_token, rows[0]]), *rows[1:]]
  orders, places = [], []
  longer = np.zeros((0, len(rows) + 1), np.int32)
  for own in reversed(rows):
    wanted = np.concatenate([own, longer[:, :-1], longer[:, 1:]])
    first, found, _ = distinct(_packed(wanted, vocab_size))
    ends = np.cumsum([len(own), len(longer)])
    own_places, parents, suffixes = np.split(found, ends)
    starts = offsets(parents, len(first))
    orders.append(Grams(longer[:, -1].copy(), starts, suffixes))
    places.append(own_places)
    longer = wanted[first]
  places[-1] = places[-1][vocab_size:]
  return [unigrams(vocab_size), *orders[:0:-1]], places[::-1]


def offsets(parents: np.ndarray, num_parents: int) -> np.ndarray:
  """Return the start of the children of each parent, int32 [parents + 1]."""
  ends = np.cumsum(np.bincount(parents, minlength=num_parents))
  return np.concatenate([[0], ends]).astype(np.int32)


def distinct(
  columns: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Find the distinct rows of a matrix, in ascending order.

  Args:
    columns: integers, each [M].

  Returns:
    A place in the matrix of each distinct row; the place of each row among the
    distinct ones, int32 [M]; how often each distinct one occurs.
  """
  order = np.lexsort(columns[::-1]) if columns[1:] else np.argsort(columns[0])
  new = np.zeros(len(order), bool)
  new[:1] = True
  for column in columns:
    ordered = column[order]
    new[1:] |= ordered[1:] != ordered[:-1]
  first = np.flatnonzero(new)
  numbers = np.diff(np.append(first, len(order)))
  places = np.empty(len(order), np.int32)
  places[order] = np.repeat(np.arange(len(first), dtype=np.int32), numbers)
  return order[first], places, numbers


def _packed(rows: np.ndarray, vocab_size: int) -> list[np.ndarray]:
  """Pack the columns of a matrix of tokens into few that sort alike."""
  bits = max(vocab_size - 1, 1).bit_length()
  columns = []
  for low in range(0, rows.shape[1], 63 // bits):
    packed = np.zeros(len(rows), np.int64)
    for column in rows.T[low : low + 63 // bits]:
      packed = (packed << bits) | column
    columns.append(packed)
  return columns
