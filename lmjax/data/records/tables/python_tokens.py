# SPDX-License-Identifier: Apache-2.0
"""What the tokens of Python's standard library are, line by line."""

import functools
import hashlib
import json
import keyword
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmjax.data.records.tables.table import Problem, Record
from lmjax.data.sources.text_sources import digest, python_source_files

NUM_LINES = 12_000
SHORTEST = 4  # tokens of a line that has something to say
_IGNORED = (
  tokenize.ENCODING,
  tokenize.COMMENT,
  tokenize.NL,
  tokenize.INDENT,
  tokenize.DEDENT,
)

Token = tuple[int, str]


class PythonTokens:
  """Logical lines of the standard library, a record each.

      token   the tokens as they are written
      tag     its kind: KEYWORD, NUMBER, STRING, OPERATOR, or the role of a name
              in its line, which the name alone does not determine: DEFINITION
              after def and class, METHOD or FUNCTION if it is called, ATTRIBUTE
              after a dot, ARGUMENT before the = of a call, NAME elsewhere
      chunk   dotted names, B- and I- before what they are: MODULE in imports,
              CALL if they are called, DEFINITION, and REFERENCE if they have a
              dot; all else is O

      token   import       os       .        path     as       p
      tag     KEYWORD      NAME     OPERATOR ATTRIBUTE KEYWORD NAME
      chunk   O            B-MODULE I-MODULE I-MODULE O        B-MODULE

  Lines are taken file by file, in an order that their names' digests give, so
  that there are some of all parts of the library; none is there twice.
  """

  @functools.cached_property
  def _lines(self) -> list[tuple[str, dict[str, list[str]]]]:
    lines = {}
    for path in sorted(python_source_files(), key=_place):
      for number, line in _logical_lines(path):
        if len(line) >= SHORTEST:
          lines.setdefault(tuple(line), f"{path}:{number}")
      if len(lines) >= NUM_LINES:
        break
    return [(where, _columns(line)) for line, where in lines.items()]

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the records."""
    return digest(json.dumps([fields for _, fields in self._lines]).encode())

  def __iter__(self) -> Iterator[Record | Problem]:
    """Go through the lines."""
    for where, fields in self._lines:
      yield Record(where, fields)


def _place(path: Path) -> str:
  name = "/".join(path.parts[-2:])
  return hashlib.blake2b(name.encode()).hexdigest()


def _logical_lines(path: Path) -> Iterator[tuple[int, list[Token]]]:
  """Divide a file into lines of tokens, each with the number of its first."""
  line, first = [], 0
  try:
    with open(path, "rb") as file:
      for token in tokenize.tokenize(file.readline):
        if token.type == tokenize.NEWLINE:
          yield first, line
          line = []
        elif token.type not in _IGNORED:
          first = first if line else token.start[0]
          line.append((token.type, token.string))
  except (SyntaxError, tokenize.TokenError):  # files that show broken code
    return


def _columns(line: Sequence[Token]) -> dict[str, list[str]]:
  texts = [text for _, text in line]
  return dict(
    token=texts,
    tag=[_tag(line, index) for index in range(len(line))],
    chunk=_chunks(texts, [_is_name(token) for token in line]),
  )


def _is_name(token: Token) -> bool:
  kind, text = token
  return kind == tokenize.NAME and not keyword.iskeyword(text)


def _tag(line: Sequence[Token], index: int) -> str:
  if not _is_name(line[index]):
    kind = tokenize.tok_name[line[index][0]]
    if "STRING" in kind:  # and parts of one, from Python 3.12 on
      return "STRING"
    return {"NAME": "KEYWORD", "NUMBER": "NUMBER"}.get(kind, "OPERATOR")
  before = line[index - 1][1] if index else ""
  after = line[index + 1][1] if index + 1 < len(line) else ""
  if before in ("def", "class"):
    return "DEFINITION"
  if before == ".":
    return "METHOD" if after == "(" else "ATTRIBUTE"
  if after == "(":
    return "FUNCTION"
  return "ARGUMENT" if after == "=" and before in ("(", ",") else "NAME"


def _chunks(texts: Sequence[str], is_name: Sequence[bool]) -> list[str]:
  chunks, start = ["O"] * len(texts), 0
  while start < len(texts):
    if not is_name[start]:
      start += 1
      continue
    end = start + 1
    while end + 1 < len(texts) and texts[end] == "." and is_name[end + 1]:
      end += 2
    kind = _kind(texts, start, end)
    if kind:
      chunks[start] = f"B-{kind}"
      chunks[start + 1 : end] = [f"I-{kind}"] * (end - start - 1)
    start = end
  return chunks


def _kind(texts: Sequence[str], start: int, end: int) -> str:
  """Say what a dotted name is; nothing if it is not worth a word."""
  if texts[0] in ("import", "from"):
    return "MODULE"
  if start and texts[start - 1] in ("def", "class"):
    return "DEFINITION"
  if end < len(texts) and texts[end] == "(":
    return "CALL"
  return "REFERENCE" if end - start > 1 else ""
