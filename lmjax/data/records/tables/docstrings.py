# SPDX-License-Identifier: Apache-2.0
"""Docstrings of CPython's own modules, and which package each is from."""

import ast
import collections
import functools
import json
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lmjax.data.records.tables.table import Record
from lmjax.data.sources.text_sources import digest, python_source_files

FEWEST = 50  # docstrings of a package; smaller ones are left out


class DocstringTable:
  """The columns text, a docstring, and label, the package or module it is of.

  A text that is there several times is taken once. Nothing is imported.

  Args:
    cache_dir: where the records of this Python are remembered, as to parse all
      of it takes seconds.
  """

  def __init__(self, cache_dir: Path):
    self._cache_dir = cache_dir

  @functools.cached_property
  def _lines(self) -> list[list[str]]:
    """Read where each is, its text and its label."""
    what = f"{sys.version} {sysconfig.get_path('stdlib')}".encode()
    how = Path(__file__).read_bytes()
    memo = self._cache_dir / "docstrings" / f"{digest(what + how)}.json"
    if not memo.exists():
      memo.parent.mkdir(parents=True, exist_ok=True)
      with tempfile.NamedTemporaryFile(
        "w", dir=memo.parent, delete=False
      ) as partial:
        json.dump(read_docstrings(), partial)
      os.replace(partial.name, memo)
    return json.loads(memo.read_text())

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of all records."""
    return digest(json.dumps(self._lines).encode())

  def __iter__(self) -> Iterator[Record]:
    """Read module by module, in alphabetical order."""
    for where, text, label in self._lines:
      yield Record(where, dict(text=text, label=label))


@functools.cache
def read_docstrings() -> list[tuple[str, str, str]]:
  """Parse the modules: where each docstring is, its text and its label."""
  root, found = Path(sysconfig.get_path("stdlib")), {}
  for path in python_source_files():
    name = path.relative_to(root)
    label = name.parts[0].removesuffix(".py")
    try:
      tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # some modules show what is none
      continue
    for line, text in _docstrings(tree):
      found.setdefault(text, (f"{name}:{line}", text, label))
  counts = collections.Counter(label for _, _, label in found.values())
  return [each for each in found.values() if counts[each[2]] >= FEWEST]


def _docstrings(scope: ast.AST) -> Iterator[tuple[int, str]]:
  """List the docstrings of a module, its classes and functions, by line."""
  is_function = isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef)
  if is_function or isinstance(scope, ast.Module | ast.ClassDef):
    text = (ast.get_docstring(scope) or "").strip()
    if text:
      yield getattr(scope, "lineno", 1), text
  if not is_function:  # what they define inside, and hide, is left out
    for field in ("body", "orelse", "handlers", "finalbody"):
      for inner in getattr(scope, field, ()):
        yield from _docstrings(inner)
