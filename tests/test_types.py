# SPDX-License-Identifier: Apache-2.0
"""Every dimension letter in the name of an array has one definition."""

import ast
import re
from pathlib import Path

import pytest

import lmjax
import lmjax.types

PACKAGE = Path(lmjax.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

_SUFFIX = re.compile(r"[a-z]\w*_([A-Z0-9]*[A-Z][A-Z0-9]*)")
_DEFINITION = re.compile(r"^ {4}([A-Z])  \S", re.MULTILINE)


def defined(docstring: str | None) -> list[str]:
  """Return the letters that a docstring defines, in order."""
  return _DEFINITION.findall(docstring or "")


def used(tree: ast.Module) -> dict[str, str]:
  """Map each dimension letter of a module to a name that contains it."""
  letters = {}
  for node in ast.walk(tree):
    for field in ("id", "arg", "attr"):
      match = _SUFFIX.fullmatch(str(getattr(node, field, "") or ""))
      for letter in match[1] if match else "":
        if letter.isalpha():
          letters[letter] = match[0]
  return letters


LEGEND = defined(lmjax.types.__doc__)


def undefined(source: str) -> list[str]:
  """Return the names of a module that contain a letter without definition."""
  tree = ast.parse(source)
  known = {*LEGEND, *defined(ast.get_docstring(tree, clean=False))}
  return sorted(
    name for letter, name in used(tree).items() if letter not in known
  )


def test_the_legend_defines_each_letter_once():
  assert sorted(set(LEGEND)) == LEGEND
  assert len(LEGEND) > 20


def test_dimension_letters_are_defined():
  missing = {str(path): undefined(path.read_text()) for path in MODULES}
  assert not {path: names for path, names in missing.items() if names}


def test_modules_define_only_letters_that_they_use_and_the_legend_lacks():
  for path in MODULES:
    if path == PACKAGE / "types.py":
      continue
    tree = ast.parse(path.read_text())
    own = defined(ast.get_docstring(tree, clean=False))
    assert set(own) <= set(used(tree)) - set(LEGEND), path


def test_every_letter_of_the_legend_is_used():
  letters = set()
  for path in MODULES:
    letters |= set(used(ast.parse(path.read_text())))
  assert set(LEGEND) <= letters


@pytest.mark.parametrize(
  "source",
  [
    "hidden_BTP = 1",
    "def attend(query_BQ): ...",
    "f(scores_WV=1)",
    "self.bias_HR = 1",
    '"""A module.\n\n    Q  queries\n"""\nx_QM = 1',
  ],
)
def test_undefined_letters_are_found(source):
  assert len(undefined(source)) == 1
