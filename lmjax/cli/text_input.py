# SPDX-License-Identifier: Apache-2.0
"""Texts that users give at a command line or in a file of their own."""

import sys
from pathlib import Path

from lmjax.data.records.tables.lines import raw_lines
from lmjax.data.records.tables.requests import STDIN, open_lines
from lmjax.data.records.tables.table import Problem
from lmjax.errors import UsageError, UserError


def check_unicode(text: str) -> str:
  """Return a text of a command line as it is.

  Raises:
    UsageError: if its bytes are no UTF-8, which Python lets through as halves
      of surrogates.
  """
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise UsageError(
      f"the text is not UTF-8 at character {error.start}; correct it."
    ) from error
  return text


def read_lines(path: str) -> list[str]:
  """Read a text a line; empty lines are none.

  Args:
    path: a file, plain or compressed; "-" for standard input.

  Raises:
    UserError: if it cannot be read, is not UTF-8, or has no text.
  """
  texts = []
  for line in open_lines(path):
    if isinstance(line, Problem):
      raise UserError(f"{line.where}: {line.reason}; correct it.")
    if line.text:
      texts.append(line.text)
  if not texts:
    raise UserError(f"{path} is empty; write a text a line.")
  return texts


def read_text(path: str) -> str:
  """Read all of a file as one text; see `read_lines`.

  Raises:
    UserError: if it cannot be read, is not UTF-8, or has no text.
  """
  raw = (
    sys.stdin.buffer if path == STDIN else raw_lines(Path(path).expanduser())
  )
  data = b"".join(raw)
  if not data:
    raise UserError(f"{path} is empty; write some text.")
  try:
    return data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise UserError(
      f"{path} is not UTF-8 at byte {error.start}; correct it."
    ) from error
