# SPDX-License-Identifier: Apache-2.0
"""What the functions of the standard library say that they do."""

import ast
import functools
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lmjax.data.records.tables.table import Problem, Record
from lmjax.data.sources.text_sources import digest_files, python_source_files

# A block that starts with a docstring; modules with few are not parsed.
_DOCSTRING = re.compile(rb':[ \t]*\n[ \t]+[rR]?"""')
_FEWEST = 10
_SENTENCE = re.compile(r"(.*?[.!?])(?:\s|$)")


class PythonSignatures:
  """Public functions, each a record, without importing anything.

  The column "signature" has the name, with that of its class, and the
  arguments, "summary" the first sentence of the docstring:

      Path.rmdir(self)    Remove this directory.

  Args:
    cache_dir: where content digests are remembered.
  """

  def __init__(self, cache_dir: Path):
    self._cache_dir = cache_dir

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the modules."""
    digest = digest_files(python_source_files(), self._cache_dir)
    return f"{digest} signatures"

  @functools.cached_property
  def _records(self) -> list[Record]:
    root, found = Path(sysconfig.get_path("stdlib")), {}
    for path in python_source_files():
      source = path.read_bytes()
      if len(_DOCSTRING.findall(source)) < _FEWEST:
        continue
      for line, signature, summary in signatures(source):
        where = f"{path.relative_to(root)}:{line}"
        fields = dict(signature=signature, summary=summary)
        found.setdefault((signature, summary), Record(where, fields))
    return list(found.values())

  def __iter__(self) -> Iterator[Record | Problem]:
    """Read module by module, what says the same once."""
    return iter(self._records)


def signatures(source: bytes) -> Iterator[tuple[int, str, str]]:
  r"""Read a module's functions: line, signature and summary.

  >>> list(signatures(b'def f(x, y=1):\n  "Add it up. Or not."'))
  [(1, "f(x, y=1)", "Add it up.")]
  """
  try:
    tree = ast.parse(source)
  except (SyntaxError, ValueError):  # a sample of bad or older Python
    return
  yield from _within(tree, "")


def _within(node: ast.AST, prefix: str) -> Iterator[tuple[int, str, str]]:
  for child in getattr(node, "body", ()):
    if isinstance(child, ast.ClassDef):
      yield from _within(child, f"{prefix}{child.name}.")
    elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
      summary = first_sentence(ast.get_docstring(child) or "")
      if summary and not child.name.startswith("_"):
        arguments = ast.unparse(child.args)
        yield child.lineno, f"{prefix}{child.name}({arguments})", summary


def first_sentence(docstring: str) -> str:
  """Return the first sentence of the first paragraph, in one line."""
  paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
  found = _SENTENCE.match(paragraph)
  return found[1] if found else paragraph
