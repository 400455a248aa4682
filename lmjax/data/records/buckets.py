# SPDX-License-Identifier: Apache-2.0
"""Batches of rows that are about equally long, by number.

Rows are divided by length into a few buckets, and a batch holds rows of one, so
that there are few shapes to compile and little padding. Which rows batch i has
is a function of the seed and i; rows are chosen for the whole job and then
sliced by process.

Dimension letters:

    R  fields of an example that have a length, such as source and target
"""

import functools
from collections.abc import Sequence

import numpy as np

from lmjax.data.records.encoded import Encoded
from lmjax.data.records.schemas.schema import Example
from lmjax.data.shuffle import mix, permute

# Padded lengths are multiples of this, so that splits share shapes.
MULTIPLE = 8
_FILL = -1


class Buckets:
  """Batches of examples.

  Each epoch has every row once. What is left over of a bucket goes into the
  next wider one, and the last batch is filled up with rows that weigh nothing.

  Attributes:
    batch_size: rows of a global batch.
    shapes: the lengths of each bucket's groups, from the narrowest on.

  Args:
    examples: the rows; at least one.
    batch_size: rows of a global batch.
    num_buckets: how many shapes there are at most.
    seed: seed of the order.
    shuffled: whether rows and batches come in a new order every epoch; else
      from the shortest to the longest.
    process_index: which slice of each batch is wanted.
    process_count: how many slices there are; divides `batch_size`.
  """

  def __init__(
    self,
    examples: Encoded,
    batch_size: int,
    num_buckets: int,
    seed: int = 0,
    shuffled: bool = False,
    process_index: int = 0,
    process_count: int = 1,
  ):
    self.batch_size = batch_size
    self._examples, self._seed, self._shuffled = examples, seed, shuffled
    local = batch_size // process_count
    self._local = slice(process_index * local, (process_index + 1) * local)
    lengths_NR = -(-np.maximum(examples.lengths(), 1) // MULTIPLE) * MULTIPLE
    self._total_N = lengths_NR.sum(axis=1)
    tops = divide(self._total_N, num_buckets)
    self._bucket_N = np.searchsorted(tops, self._total_N)
    longest = [
      lengths_NR[self._bucket_N == bucket].max(axis=0)
      for bucket in range(len(tops))
    ]
    self.shapes = np.maximum.accumulate(longest, axis=0).tolist()
    self._plan = functools.lru_cache(maxsize=2)(self._make_plan)

  def __len__(self) -> int:
    """Return the number of batches in an epoch."""
    return -(-len(self._examples) // self.batch_size)

  @property
  def tokens_per_batch(self) -> float:
    """Return how many places a batch has on average, padding counted."""
    sizes = [self.batch_size * sum(self.shapes[b]) for b, _ in self._plan(0)]
    return float(np.mean(sizes))

  def rows(self, index: int) -> np.ndarray:
    """Return the numbers of the rows of a global batch, −1 for filling."""
    epoch, place = divmod(index, len(self))
    return self._plan(epoch if self._shuffled else 0)[place][1]

  def __getitem__(self, index: int) -> Example:
    """Return this process's rows of batch `index`, of any epoch."""
    epoch, place = divmod(index, len(self))
    bucket, rows_B = self._plan(epoch if self._shuffled else 0)[place]
    return self._examples.batch(rows_B[self._local], self.shapes[bucket])

  def _make_plan(self, epoch: int) -> Sequence[tuple[int, np.ndarray]]:
    """Divide an epoch into batches: the bucket of each, and its rows."""
    number = len(self._examples)
    key = mix(mix(np.uint64(self._seed)) ^ np.uint64(epoch))
    order_N = np.arange(number)
    if self._shuffled:
      order_N = permute(order_N, number, np.full(number, key))
    else:
      order_N = np.argsort(self._total_N, kind="stable")
    batches, left = [], np.zeros(0, np.int64)
    bucket_N = self._bucket_N[order_N]
    for bucket in range(len(self.shapes)):
      rows = np.concatenate([left, order_N[bucket_N == bucket]])
      full = len(rows) // self.batch_size * self.batch_size
      parts = rows[:full].reshape(-1, self.batch_size)
      batches += [(bucket, part) for part in parts]
      left = rows[full:]
    if len(left):
      fill = np.full(self.batch_size - len(left), _FILL)
      batches.append((len(self.shapes) - 1, np.concatenate([left, fill])))
    if self._shuffled:
      places = permute(
        np.arange(len(batches)), len(batches), np.full(len(batches), mix(key))
      )
      batches = [batches[place] for place in places]
    return batches


def divide(lengths_N: np.ndarray, parts: int) -> np.ndarray:
  """Divide lengths into ranges with the least padding to their tops.

  >>> divide([2, 2, 3, 9, 10, 30], 3)
  [3, 10, 30]

  Returns:
    The longest length of each range, ascending; fewer than `parts` if there
    are not as many different lengths.
  """
  tops, counts = np.unique(lengths_N, return_counts=True)
  below = np.concatenate([[0], np.cumsum(counts)])
  number, parts = len(tops), min(parts, len(tops))
  # cost[i]: of the first i lengths in the ranges so far; each range costs its
  # top for every row in it.
  cost = np.full(number + 1, np.inf)
  cost[0] = 0.0
  cuts = []
  for _ in range(parts):
    total = cost[:, None] + (below[1:] - below[:, None]) * tops
    total[np.arange(number + 1)[:, None] > np.arange(number)] = np.inf
    cut = np.argmin(total, axis=0)
    cuts.append(cut)
    cost = np.concatenate([[np.inf], total[cut, np.arange(number)]])
  chosen, end = [], number
  for cut in reversed(cuts):
    chosen.append(tops[end - 1])
    end = cut[end - 1]
  return np.array(chosen[::-1])
