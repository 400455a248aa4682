# SPDX-License-Identifier: Apache-2.0
"""Tables that lie in files, whatever their format is."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from lmjax.data.records.tables.lines import Line, numbered, raw_lines
from lmjax.data.records.tables.table import Problem, Record
from lmjax.data.sources.text_sources import digest_files


class Format(Protocol):
  """How records are written, a frozen dataclass of what there is to choose."""

  def read(self, lines: Iterable[Line | Problem]) -> Iterator[Record | Problem]:
    """Make records of the lines of a file as they come; problems stay."""


class FileTable:
  """The records of files, one file after the other.

  Args:
    paths: the files, plain or compressed, in UTF-8.
    format: how they are written.
    cache_dir: where content digests are remembered.
  """

  def __init__(self, paths: Sequence[Path], format: Format, cache_dir: Path):
    self._paths, self._format = tuple(paths), format
    self._cache_dir = cache_dir

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the files' content, and how they are read."""
    return f"{digest_files(self._paths, self._cache_dir)} {self._format}"

  def __iter__(self) -> Iterator[Record | Problem]:
    """Read from the first line of the first file to the last of the last."""
    for path in self._paths:
      yield from self._format.read(numbered(str(path), raw_lines(path)))
