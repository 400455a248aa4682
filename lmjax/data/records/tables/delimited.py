# SPDX-License-Identifier: Apache-2.0
"""Columns side by side, by number from 0, and by name if there is a header."""

import csv
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence

from lmjax.data.records.tables.lines import Line
from lmjax.data.records.tables.table import Problem, Record

Row = tuple[str, Sequence[str]]  # where, columns

csv.field_size_limit(sys.maxsize)  # texts are longer than its 128 KiB


@dataclasses.dataclass(frozen=True)
class TabSeparated:
  """Columns between tabs, one record a line.

  Nothing is quoted. Empty lines are no records.

  Attributes:
    header: whether the first line names the columns.
  """

  header: bool = False

  def read(self, lines: Iterable[Line | Problem]) -> Iterator[Record | Problem]:
    """Read line by line."""
    return _named(_at_tabs(lines), self.header)


@dataclasses.dataclass(frozen=True)
class CommaSeparated:
  """Columns between commas, quoted as in RFC 4180, even over several lines.

  A record is where its first line is. Empty lines are no records.

  Attributes:
    header: whether the first record names the columns.
  """

  header: bool = False

  def read(self, lines: Iterable[Line | Problem]) -> Iterator[Record | Problem]:
    """Read record by record."""
    return _named(_at_commas(lines), self.header)


def _at_tabs(lines: Iterable[Line | Problem]) -> Iterator[Row | Problem]:
  for line in lines:
    if isinstance(line, Problem):
      yield line
    elif line.text.strip():
      yield line.where, line.text.split("\t")


def _at_commas(lines: Iterable[Line | Problem]) -> Iterator[Row | Problem]:
  begun = []  # the lines of a record

  def texts() -> Iterator[str]:
    for line in lines:
      begun.append(line)
      yield "\n" if isinstance(line, Problem) else line.text + "\n"

  reader = csv.reader(texts(), strict=True)
  while True:
    begun.clear()
    try:
      columns, reason = next(reader), ""
    except StopIteration:
      return
    except csv.Error as error:
      columns, reason = [], f"its quotes are broken ({error})"
    broken = [line for line in begun if isinstance(line, Problem)]
    if broken:
      yield broken[0]
    elif reason:
      yield Problem(begun[0].where, reason)
    elif columns:
      yield begun[0].where, columns


def _named(
  rows: Iterable[Row | Problem], header: bool
) -> Iterator[Record | Problem]:
  """Give columns their numbers and names, and as many to each record.

  Where there is no header, the first record says how many there are.
  """
  names, numbers, first = [], [], ""
  for row in rows:
    if isinstance(row, Problem):
      yield row
      continue
    where, columns = row
    is_header = header and not first
    if not first:
      first, numbers = where, [str(index) for index in range(len(columns))]
    if is_header:
      names = columns
      if len(set(names)) < len(names):
        yield Problem(where, "it names two columns alike")
    elif len(columns) != len(numbers):
      number = f"{len(columns)} column{'s' * (len(columns) != 1)}"
      yield Problem(where, f"it has {number}, and {first} has {len(numbers)}")
    else:
      fields = dict(zip(numbers, columns, strict=True))
      fields.update(zip(names, columns, strict=False))
      yield Record(where, fields)
