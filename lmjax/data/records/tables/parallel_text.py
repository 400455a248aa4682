# SPDX-License-Identifier: Apache-2.0
"""Parallel text: files with corresponding lines, such as translations."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmjax.data.records.tables.lines import numbered, raw_lines
from lmjax.data.records.tables.table import Problem, Record
from lmjax.data.sources.text_sources import COMPRESSIONS, digest_files
from lmjax.errors import UserError


class ParallelText:
  """A record a line, with a column for each file; empty lines count too.

  Args:
    paths: the files, plain or compressed: train.en, train.de.gz, ...
    sides: the endings of their names, which are the columns: ("en", "de").
    cache_dir: where content digests are remembered.

  Raises:
    UserError: if a file has no other one beside it, or not as many lines.
  """

  def __init__(
    self, paths: Sequence[Path], sides: Sequence[str], cache_dir: Path
  ):
    self._sides, self._cache_dir = tuple(sides), cache_dir
    found: dict[Path, dict[str, Path]] = {}
    for path in paths:
      plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
      side = plain.suffix.removeprefix(".")
      if side in self._sides:
        found.setdefault(plain.with_suffix(""), {})[side] = path
    for stem, files in found.items():
      missing = [side for side in self._sides if side not in files]
      if missing:
        there = next(iter(files.values()))
        raise UserError(
          f"{there} has no {stem.name}.{missing[0]} beside it; add it, or name "
          "other endings by data.columns."
        )
    if not found:
      raise UserError(
        f"{paths[0]} ends in none of {', '.join(self._sides)}; name the "
        "endings of the files by data.columns."
      )
    self._groups = [found[stem] for stem in sorted(found)]

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the files' content, and of which is which."""
    paths = [files[side] for files in self._groups for side in self._sides]
    digest = digest_files(paths, self._cache_dir)
    return f"{digest} {' '.join(self._sides)}"

  def __iter__(self) -> Iterator[Record | Problem]:
    """Read line by line."""
    for files in self._groups:
      paths = [files[side] for side in self._sides]
      columns = [list(numbered(str(path), raw_lines(path))) for path in paths]
      for (a, path_a), (b, path_b) in itertools.pairwise(
        zip(columns, paths, strict=True)
      ):
        if len(a) != len(b):
          raise UserError(
            f"{path_a} has {len(a):,} lines and {path_b} has {len(b):,}; give "
            "both as many, so that each line has its other."
          )
      for row in zip(*columns, strict=True):
        bad = [line for line in row if isinstance(line, Problem)]
        if bad:
          yield bad[0]
          continue
        texts = [line.text for line in row]
        fields = dict(zip(self._sides, texts, strict=True))
        yield Record(row[0].where, fields)
