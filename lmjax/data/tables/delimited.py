# SPDX-License-Identifier: Apache-2.0
"""Columns between tabs, one record a line."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmjax.data.sources import decode, digest_files, read_bytes
from lmjax.data.tables.table import Problem, Record


class TabSeparatedTable:
  """Columns between tabs, by number from 0, and by name if there is a header.

  Nothing is quoted. Empty lines are no records.

  Args:
    paths: the files, plain or compressed.
    header: whether the first line of each names the columns.
    cache_dir: where content digests are remembered.
  """

  def __init__(self, paths: Sequence[Path], header: bool, cache_dir: Path):
    self._paths, self._header = tuple(paths), header
    self._cache_dir = cache_dir

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the files' content, and of how they are read."""
    digest = digest_files(self._paths, self._cache_dir)
    return f"{digest} header" if self._header else digest

  def __iter__(self) -> Iterator[Record | Problem]:
    """Read line by line."""
    for path in self._paths:
      names = []
      for number, line in enumerate(lines(path), 1):
        columns = line.split("\t")
        if self._header and number == 1:
          names = columns
        elif line.strip():
          yield self._record(f"{path}:{number}", names, columns)

  def _record(
    self, where: str, names: list[str], columns: list[str]
  ) -> Record | Problem:
    if names and len(columns) != len(names):
      return Problem(
        where, f"there are {len(columns)} columns, and {len(names)} names"
      )
    numbered = {str(index): text for index, text in enumerate(columns)}
    return Record(where, numbered | dict(zip(names, columns, strict=False)))


def lines(path: Path) -> Iterator[str]:
  """Read the lines of a file in UTF-8, without their ends."""
  data, start = read_bytes(path), 0
  while start < len(data):
    end = data.find(b"\n", start)
    end = len(data) if end < 0 else end
    yield decode(bytes(data[start:end]), str(path)).removesuffix("\r")
    start = end + 1
