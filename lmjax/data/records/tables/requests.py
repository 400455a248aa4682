# SPDX-License-Identifier: Apache-2.0
"""What a run that has learned is asked about: a file, or standard input."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from lmjax.data.records.tables import FILE_KINDS
from lmjax.data.records.tables.lines import Line, numbered, raw_lines
from lmjax.data.records.tables.table import Problem, Record
from lmjax.data.sources.text_sources import COMPRESSIONS

STDIN = "-"
PLAIN = "lines"
FORMATS = (PLAIN, *FILE_KINDS)


@dataclasses.dataclass(frozen=True)
class PlainLines:
  """A text a line; where several are needed, between tabs.

  Attributes:
    columns: what they are called, in their order.
  """

  columns: tuple[str, ...]

  def read(self, lines: Iterable[Line | Problem]) -> Iterator[Record | Problem]:
    """Read line by line; empty ones are no records."""
    number = len(self.columns)
    for line in lines:
      if isinstance(line, Problem):
        yield line
      elif line.text.strip():
        texts = line.text.split("\t") if number > 1 else [line.text]
        if len(texts) == number:
          yield Record(line.where, dict(zip(self.columns, texts, strict=True)))
        else:
          wanted = f"{number} texts between tabs, {', '.join(self.columns)}"
          yield Problem(line.where, f"it has {len(texts)}, and not {wanted}")


def read_requests(
  path: str, format: str, data: ConfigDict, columns: Sequence[str]
) -> Iterator[Record | Problem]:
  """Read records as they come.

  Args:
    path: a file, plain or compressed; "-" for standard input.
    format: one of FORMATS; empty for what the file's name ends in.
    data: the section of the run's config, with options of formats.
    columns: of plain lines.

  Raises:
    UserError: if the file cannot be read.
  """
  kind = format or _format_of(path)
  chosen = (
    PlainLines(tuple(columns))
    if kind == PLAIN
    else FILE_KINDS[kind].format(data)
  )
  return chosen.read(open_lines(path))


def open_lines(path: str) -> Iterator[Line | Problem]:
  """Read lines as they come, of a file or of standard input."""
  if path == STDIN:
    return numbered("stdin", sys.stdin.buffer)
  return numbered(path, raw_lines(Path(path).expanduser()))


def _format_of(path: str) -> str:
  """Tell a format by a file's name."""
  name = Path(path)
  name = name.stem if name.suffix in COMPRESSIONS else name.name
  kinds = (k for k, v in FILE_KINDS.items() if name.endswith(v.suffixes))
  return next(kinds, PLAIN)
