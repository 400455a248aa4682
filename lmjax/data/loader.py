# SPDX-License-Identifier: Apache-2.0
"""Prefetching of batches with Grain, in order."""

from collections.abc import Iterator
from typing import Any, Protocol

import grain


class Batches(Protocol):
  """Batches by index.

  Attributes:
    batch_size: number of rows of a global batch.
  """

  batch_size: int

  def __len__(self) -> int:
    """Return the number of batches of one epoch."""

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Return batch `index`."""


def load(
  batches: Batches, start: int, stop: int, num_threads: int = 1
) -> Iterator[dict[str, Any]]:
  """Iterate over batches `start` to `stop`.

  Args:
    batches: batches by index.
    start: the first index; resuming needs no other state.
    stop: the index after the last.
    num_threads: number of threads that prefetch; 0 disables prefetching.
  """
  # An element of the Grain dataset is a whole batch: with one row per element,
  # threads cost more than reading. Grain's default of 16 threads and 500
  # elements is slower still on a machine with few cores.
  dataset = grain.MapDataset.range(start, stop).map(batches.__getitem__)
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=4 * num_threads
  )
  return iter(dataset.to_iter_dataset(options))
