# SPDX-License-Identifier: Apache-2.0
"""The lines of files, each with where it is."""

import lzma
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lmjax.data.records.tables.table import Problem
from lmjax.data.sources.text_sources import COMPRESSIONS
from lmjax.errors import UserError

_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
  """A line of text.

  Attributes:
    where: file and number, as FILE:7.
    text: without what ends it.
  """

  where: str
  text: str


def raw_lines(path: Path) -> Iterator[bytes]:
  """Read a file line by line, plain or compressed.

  Raises:
    UserError: if that cannot be done.
  """
  opener = COMPRESSIONS.get(path.suffix, open)
  try:
    with opener(path, "rb") as file:
      yield from file
  except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"{path} cannot be read: {reason}.") from error


def numbered(name: str, raw: Iterable[bytes]) -> Iterator[Line | Problem]:
  r"""Decode lines in UTF-8, numbered from 1; one that is not is a problem.

  A byte order mark before the first is left out.

  >>> list(numbered("a", [b"one\r\n", b"\xff\n"]))
  [Line("a:1", "one"), Problem("a:2", "it is not UTF-8 at byte 0")]
  """
  for number, data in enumerate(raw, 1):
    where = f"{name}:{number}"
    if number == 1:
      data = data.removeprefix(_BOM)
    try:
      text = data.decode("utf-8")
    except UnicodeDecodeError as error:
      yield Problem(where, f"it is not UTF-8 at byte {error.start}")
      continue
    yield Line(where, text.removesuffix("\n").removesuffix("\r"))
