# SPDX-License-Identifier: Apache-2.0
"""Dividing one source into train, valid and test."""

import fnmatch
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data.sources.text_sources import Source

SPLITS = ("train", "valid", "test")


class Piece(NamedTuple):
  """Characters `start` to `stop` of one document."""

  document: int
  start: int
  stop: int


class Layout:
  """The documents of a source in a fixed shuffled order, end to end.

  Shuffled, because neighbors in a folder resemble each other; one document
  alone is divided from front to back.
  """

  def __init__(self, source: Source):
    self._source = source

  @functools.cached_property
  def _order(self) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(self._source))

  @functools.cached_property
  def _lengths(self) -> np.ndarray:
    lengths = [len(self._source[i]) for i in range(len(self._source))]
    return np.array(lengths, np.int64)[self._order]

  def pieces(self, start: float, stop: float) -> list[Piece]:
    """List what lies between two fractions of all characters, in order."""
    ends = np.cumsum(self._lengths)
    begins = ends - self._lengths
    total = int(self._lengths.sum())
    lows = np.maximum(begins, int(total * start))
    highs = np.minimum(ends, int(total * stop))
    return sorted(
      Piece(int(document), int(low - begin), int(high - begin))
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
  def _pieces(self) -> list[Piece]:
    return self._layout.pieces(*self._range)

  def __len__(self) -> int:
    """Return the number of documents, including truncated ones."""
    return len(self._pieces)

  def __getitem__(self, index: int) -> str:
    """Return a document, truncated at the end of the range."""
    piece = self._pieces[index]
    return self._source[piece.document][piece.start : piece.stop]

  def label(self, index: int, by: str) -> str:
    """Say what kind of text a document is; see Source."""
    return self._source.label(self._pieces[index].document, by)


def split_by_ratio(
  source: Source, valid_fraction: float, test_fraction: float
) -> dict[str, Source]:
  """Divide by characters: train first, then valid, then test.

  The split is exact, so a document that crosses it is in both parts, each with
  its part of the text.
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
  """Divide files by patterns on their names.

  Args:
    paths: the files.
    patterns: a split's name to comma-separated patterns. A file may be in
      several splits, and files that match nothing are left out.

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
