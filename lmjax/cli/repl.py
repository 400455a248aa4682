# SPDX-License-Identifier: Apache-2.0
"""A read–eval–print loop: one answer per line until the input ends."""

import contextlib
import sys
from collections.abc import Callable, Iterable

from lmjax.cli.text_input import check_unicode
from lmjax.errors import UserError


def converse(
  read: Callable[[], str], answer: Callable[[str], Iterable[str]]
) -> None:
  """Print an answer to each line while it is generated, until EOF.

  A UserError is printed to stderr and the loop continues, as it does after
  Ctrl-C, which stops an answer. Empty lines are skipped.

  Args:
    read: returns a line, or raises EOFError.
    answer: yields the parts of the answer to a line.
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
  """Print a text while it is generated, and end the line."""
  for piece in pieces:
    print(piece, end="", flush=True)
  print(flush=True)


def line_reader() -> Callable[[], str]:
  """Return a function that reads the lines of stdin; see `converse`.

  At a terminal there is a history if Python has readline.
  """
  with contextlib.suppress(ImportError):
    import readline  # noqa: F401  # `input` then knows earlier lines
  sys.stdin.reconfigure(errors="surrogateescape")
  prompt = "> " if sys.stdin.isatty() else ""
  return lambda: input(prompt)
