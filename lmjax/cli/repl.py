# SPDX-License-Identifier: Apache-2.0
"""Lines in, texts out, one after the other, until there are no more lines."""

import contextlib
import sys
from collections.abc import Callable, Iterable

from lmjax.cli.text_input import check_unicode
from lmjax.errors import UserError


def converse(
  read: Callable[[], str], answer: Callable[[str], Iterable[str]]
) -> None:
  """Answer each line on stdout, as it is made, until `read` finds no more.

  What a user can correct is told on stderr, and the next line is read. So it is
  after Ctrl-C, which ends an answer. Empty lines are not answered.

  Args:
    read: returns a line, or raises EOFError.
    answer: makes a text for it, piece by piece.
  """
  while True:
    try:
      line = read()
      if line:
        show(answer(check_unicode(line)))
    except EOFError:
      return
    except UserError as error:
      print(f"error: {error}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
      print(flush=True)


def show(pieces: Iterable[str]) -> None:
  """Print a text as it is made, and end the line."""
  for piece in pieces:
    print(piece, end="", flush=True)
  print(flush=True)


def line_reader() -> Callable[[], str]:
  """Return what reads the lines of stdin; see `converse`.

  At a terminal there is a history, where Python comes with readline.
  """
  with contextlib.suppress(ImportError):
    import readline  # noqa: F401  # `input` then knows earlier lines
  sys.stdin.reconfigure(errors="surrogateescape")
  mark = "> " if sys.stdin.isatty() else ""
  return lambda: input(mark)
