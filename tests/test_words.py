# SPDX-License-Identifier: Apache-2.0
"""Docstrings, errors and help use the terms of the field."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BANNED = re.compile(
  r"\b(mend(s|ed|ing)?|whoever|poses|nobody|(has|have) a say|is none of"
  r"|of no use|run folders?|best_by|likeness)\b",
  re.IGNORECASE,
)
FILES = sorted(
  path
  for folder in ("lmjax", "scripts", "configs")
  for path in (ROOT / folder).rglob("*.py")
)


def texts(source: str) -> list[str]:
  """List the strings of a file, docstrings and f-strings among them."""
  return [
    node.value
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
  ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_strings_use_the_terms_of_the_field(path):
  for text in texts(path.read_text()):
    found = BANNED.search(text)
    assert not found, f"{found.group()!r} in {text[:80]!r}"


def test_banned_phrases_are_found_in_every_kind_of_string():
  source = '"""Mend it."""\nx = f"{1} is none of these"'
  assert sum(map(bool, map(BANNED.search, texts(source)))) == 2
