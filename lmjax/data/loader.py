# SPDX-License-Identifier: Apache-2.0
"""Reading batches ahead of the step, in order, by Grain."""

from collections.abc import Iterator
from typing import Any, Protocol

import grain


class Batches(Protocol):
  """Batches by number.

  Attributes:
    batch_size: rows of a global batch.
  """

  batch_size: int

  def __len__(self) -> int:
    """Return how many batches cover the text once."""

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Return batch `index`."""


def load(
  batches: Batches, start: int, stop: int, num_threads: int = 1
) -> Iterator[dict[str, Any]]:
  """Iterate over batches `start` to `stop`.

  Grain's element is a whole batch: at one row an element its threads cost more
  than the reading. Its own default of 16 threads and 500 elements ahead is
  slower still on a machine with few cores.

  Args:
    batches: batches by index.
    start: the first index, which is all that is needed to resume.
    stop: the index after the last.
    num_threads: threads that read ahead; 0 reads when asked.
  """
  dataset = grain.MapDataset.range(start, stop).map(batches.__getitem__)
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=4 * num_threads
  )
  return iter(dataset.to_iter_dataset(options))
