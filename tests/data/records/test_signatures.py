# SPDX-License-Identifier: Apache-2.0
import pytest

from lmjax.data.records.tables import TABLES
from lmjax.data.records.tables.signatures import (
  PythonSignatures,
  first_sentence,
  signatures,
)

MODULE = b'''
def f(x, *, y=1) -> int:
  """Add it
  up.  Or not.

  More.
  """

class A:
  class B:
    async def g(self): "Wait!"
  def _hidden(self): "Nobody calls it."
  def __init__(self): "Make one."
  def silent(self): return "This is no docstring of a function."

def outer():
  def inner(): "Not seen from outside."
'''


def test_signatures_and_first_sentences_are_read():
  assert list(signatures(MODULE)) == [
    (2, "f(x, *, y=1)", "Add it up."),
    (11, "A.B.g(self)", "Wait!"),
  ]
  assert list(signatures(b"def f(:")) == []


@pytest.mark.parametrize(
  ("docstring", "expected"),
  [
    ("Use os.path here. Or not.", "Use os.path here."),
    ("No mark\n\nMore. Text.", "No mark"),
    ("  ", ""),
  ],
)
def test_a_sentence_ends_where_a_space_follows(docstring, expected):
  assert first_sentence(docstring) == expected


def test_the_library_has_thousands_each_once(tmp_path):
  records = list(PythonSignatures(tmp_path))
  pairs = [tuple(record.fields.values()) for record in records]
  assert 1000 < len(pairs) == len(set(pairs))
  found = {signature for signature, _ in pairs}
  assert "Path.rmdir(self)" in found
  assert all(pair[0].strip() and pair[1].strip() for pair in pairs)


def test_its_fingerprint_is_that_of_the_files(tmp_path):
  one = TABLES["python_signatures"](None, tmp_path)["train"].fingerprint
  other = TABLES["python_signatures"](None, tmp_path / "b")["train"].fingerprint
  assert one == other
