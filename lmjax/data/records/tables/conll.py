# SPDX-License-Identifier: Apache-2.0
"""One word a line with its columns, sentences between blank lines."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from lmjax.data.records.tables.lines import Line
from lmjax.data.records.tables.table import Problem, Record

CONLLU_COLUMNS = (
  "id",
  "form",
  "lemma",
  "upos",
  "xpos",
  "feats",
  "head",
  "deprel",
  "deps",
  "misc",
)
DOCUMENT = "-DOCSTART-"  # in place of a sentence, between documents


@dataclasses.dataclass(frozen=True)
class Conll:
  """Columns by number from 0, each a list with a text a word.

  Columns are separated by tabs in lines that have any, else by spaces. Lines
  that mark the start of a document are skipped.

      EU      B-ORG
      rejects O

      Peter   B-PER

      {"0": ["EU", "rejects"], "1": ["B-ORG", "O"]}
      {"0": ["Peter"], "1": ["B-PER"]}
  """

  names: ClassVar[tuple[str, ...]] = ()

  def read(self, lines: Iterable[Line | Problem]) -> Iterator[Record | Problem]:
    """Make a record of each sentence; one with a problem is that problem."""
    sentence = []
    for line in lines:
      if isinstance(line, Problem) or line.text.strip():
        sentence.append(line)
      else:
        yield from self._sentence(sentence)
        sentence = []
    yield from self._sentence(sentence)

  def _sentence(
    self, lines: Sequence[Line | Problem]
  ) -> Iterator[Record | Problem]:
    """Make a record of a sentence's lines, if one of them is a word."""
    words = []
    for line in lines:
      if isinstance(line, Problem):
        yield line
        return
      columns = self._columns(line.text)
      if columns is None:
        continue
      size = len(self.names) or len(words[0] if words else columns)
      if len(columns) != size:
        number = f"{len(columns)} column{'s' * (len(columns) != 1)}"
        yield Problem(line.where, f"it has {number}, and not {size}")
        return
      words.append(columns)
    if words:
      texts = list(map(list, zip(*words, strict=True)))
      fields = {str(index): column for index, column in enumerate(texts)}
      fields.update(zip(self.names, texts, strict=False))
      yield Record(lines[0].where, fields)

  def _columns(self, line: str) -> list[str] | None:
    """Divide a line; None if it is no word."""
    columns = line.split("\t") if "\t" in line else line.split()
    return None if columns[0] == DOCUMENT else columns


@dataclasses.dataclass(frozen=True)
class Conllu(Conll):
  """The ten columns of Universal Dependencies, by name or by number.

  Comments, the ranges of words that are written as one (1-2) and words that
  are not written (1.1) are left out.
  """

  names: ClassVar[tuple[str, ...]] = CONLLU_COLUMNS

  def _columns(self, line: str) -> list[str] | None:
    columns = line.split("\t")
    written = columns[0].isdecimal() or len(columns) != len(self.names)
    return columns if written and not line.startswith("#") else None
