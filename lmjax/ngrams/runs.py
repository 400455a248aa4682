# SPDX-License-Identifier: Apache-2.0
"""Counts of keys, sorted a block at a time and merged on disk."""

import itertools
from collections.abc import Iterator

import numpy as np

from lmjax.ngrams.disk_array import DiskArray
from lmjax.ngrams.grams import distinct

ENTRY = np.dtype([("key", np.int64), ("suffix", np.int32), ("count", np.int32)])


class Runs:
  """Sorted runs of entries, whose distinct keys are merged range by range.

  Memory is for some `block` entries, and for as many integers as the square of
  the number of runs.

  Args:
    num_runs: how many runs there will be.
    block: how many entries are in memory at a time; no run has more.
  """

  def __init__(self, num_runs: int, block: int):
    # Every step-th key of each run is a sample, so that `num_runs` samples
    # represent about one block.
    self._step = max(1, block // max(num_runs, 1))
    self._samples, self._ends = [], [0]
    self._entries, self._places = DiskArray(ENTRY), DiskArray(np.int32)

  def __enter__(self) -> "Runs":
    """Return them."""
    return self

  def __exit__(self, *_) -> None:
    """Remove the files."""
    with self._entries, self._places:
      pass

  def append(self, entries: np.ndarray) -> None:
    """Add a run: ENTRY [N], whose keys ascend."""
    low, high = self._ends[-1], self._ends[-1] + len(entries)
    self._entries[low:high] = entries
    self._samples.append(entries["key"][:: self._step].copy())
    self._ends.append(high)

  def merge(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Merge all runs.

    Yields:
      Distinct keys, ascending from one range to the next; the suffix of each,
      which is the same in all runs; its counts, added up, int64.
    """
    bounds = self._bounds()
    cuts = [
      np.array(
        [low, *low + np.searchsorted(self._keys(low, high), bounds), high]
      )
      for low, high in itertools.pairwise(self._ends)
    ]
    base = 0
    for starts, stops in itertools.pairwise(zip(*cuts, strict=True)):
      slices = [
        slice(low, high)
        for low, high in zip(starts, stops, strict=True)
        if low < high
      ]
      if not slices:
        continue
      entries = np.concatenate([self._entries[piece] for piece in slices])
      first, places, _ = distinct([entries["key"]])
      counts = np.bincount(places, entries["count"]).astype(np.int64)
      begin = 0
      for piece in slices:
        end = begin + piece.stop - piece.start
        self._places[piece] = places[begin:end] + np.int64(base)
        begin = end
      yield entries["key"][first], entries["suffix"][first], counts
      base += len(first)

  def places(self, number: int) -> np.ndarray:
    """Return where the entries of a run are among the merged, int32 [N]."""
    return self._places[self._ends[number] : self._ends[number + 1]]

  def _bounds(self) -> np.ndarray:
    """Return the keys that divide the range into parts of about one block."""
    samples = np.sort(np.concatenate([np.zeros(0, np.int64), *self._samples]))
    return np.unique(samples[:: max(len(self._samples), 1)])[1:]

  def _keys(self, low: int, high: int) -> np.ndarray:
    return np.ascontiguousarray(self._entries[low:high]["key"])
