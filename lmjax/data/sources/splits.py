# SPDX-License-Identifier: Apache-2.0
"""Splits of one source into train, valid and test."""

import fnmatch
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data.sources.text_sources import Source

SPLITS = ("train", "valid", "test")


class Chunk(NamedTuple):
  """Characters `start` to `stop` of one document."""

  document: int
  start: int
  stop: int


class Layout:
  """The documents of a source, concatenated in a fixed shuffled order.

  A single document is split from its start to its end.
  """

  def __init__(self, source: Source):
    self._source = source

  @functools.cached_property
  def _order(self) -> np.ndarray:
    # Neighbors in a directory are similar; without shuffling, splits would
    # differ in kind.
    # The seed is fixed: a split is a property of the data, not of a run.
    return np.random.default_rng(0).permutation(len(self._source))

  @functools.cached_property
  def _lengths(self) -> np.ndarray:
    # In the order of the source, not shuffled: consecutive documents are mostly
    # in one file, and opening a compressed file decompresses it.
    lengths = [len(self._source[i]) for i in range(len(self._source))]
    return np.array(lengths, np.int64)[self._order]

  def chunks(self, start: float, stop: float) -> list[Chunk]:
    """Return the chunks between two fractions of all characters.

    For documents of 6 and 4 characters, which the shuffle leaves in order:

    >>> layout.chunks(0.5, 1.0)
    [Chunk(document=0, start=5, stop=6), Chunk(document=1, start=0, stop=4)]
    """
    ends = np.cumsum(self._lengths)
    begins = ends - self._lengths
    total = int(self._lengths.sum())
    lows = np.maximum(begins, int(total * start))
    highs = np.minimum(ends, int(total * stop))
    return sorted(
      Chunk(int(document), int(low - begin), int(high - begin))
      for document, begin, low, high in zip(
        self._order, begins, lows, highs, strict=True
      )
      if low < high
    )


class Portion:
  """The part of a source between two fractions of its characters."""

  def __init__(self, source: Source, layout: Layout, start: float, stop: float):
    self._source, self._layout = source, layout
    self._range = (start, stop)

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the source and the range."""
    return f"{self._source.fingerprint}[{self._range[0]}:{self._range[1]}]"

  @functools.cached_property
  def _chunks(self) -> list[Chunk]:
    return self._layout.chunks(*self._range)

  def __len__(self) -> int:
    """Return the number of documents, including truncated ones."""
    return len(self._chunks)

  def __getitem__(self, index: int) -> str:
    """Return a document, truncated at the end of the range."""
    chunk = self._chunks[index]
    return self._source[chunk.document][chunk.start : chunk.stop]

  def label(self, index: int, by: str) -> str:
    """See Source."""
    return self._source.label(self._chunks[index].document, by)


def split_by_ratio(
  source: Source, valid_fraction: float, test_fraction: float
) -> dict[str, Source]:
  """Split by characters: train first, then valid, then test.

  The fractions are exact: a document at a boundary is split in two.

  Args:
    source: the documents.
    valid_fraction: fraction of the characters in valid.
    test_fraction: fraction of the characters in test.
  """
  layout = Layout(source)
  valid = 1.0 - valid_fraction - test_fraction
  test = 1.0 - test_fraction
  return {
    "train": Portion(source, layout, 0.0, valid),
    "valid": Portion(source, layout, valid, test),
    "test": Portion(source, layout, test, 1.0),
  }


def split_by_name(
  paths: Sequence[Path], patterns: dict[str, str]
) -> dict[str, list[Path]]:
  """Assign files to splits by patterns on their names.

  Args:
    paths: the files.
    patterns: comma-separated glob patterns by split. A file may be in several
      splits, and files that match no pattern are in none.

  >>> split_by_name([Path("a/train.txt"), Path("a/dev.txt")],
  ...               {"train": "train*", "valid": "valid*,dev*"})
  {"train": [Path("a/train.txt")], "valid": [Path("a/dev.txt")]}
  """
  return {
    split: [
      path
      for path in paths
      if any(fnmatch.fnmatch(path.name, p) for p in pattern.split(","))
    ]
    for split, pattern in patterns.items()
  }
