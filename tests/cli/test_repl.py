# SPDX-License-Identifier: Apache-2.0
"""A conversation goes on until its lines end."""

import io
import sys

from lmjax.cli.repl import converse, line_reader
from lmjax.errors import UserError


def answer(line):
  """Answer in two pieces; some lines go wrong in the middle."""
  yield f"{line}, "
  if line == "long":
    raise UserError("it is too long.")
  if line == "enough":
    raise KeyboardInterrupt
  yield "yes"


def test_errors_and_interrupts_do_not_end_it(monkeypatch, capsys):
  data = "a\n\nlong\nenough\n\udcff\nb".encode(errors="surrogateescape")
  stdin = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")
  monkeypatch.setattr(sys, "stdin", stdin)
  converse(line_reader(), answer)
  output, errors = capsys.readouterr()
  assert output == "a, yes\nlong, enough, \nb, yes\n"
  assert errors.splitlines() == [
    "error: it is too long.",
    "error: the text is not UTF-8 at character 0; correct it.",
  ]
