# SPDX-License-Identifier: Apache-2.0
import gzip

import pytest

from lmjax.data.records.tables.conll import Conll, Conllu
from lmjax.data.records.tables.file_table import FileTable
from lmjax.data.records.tables.python_tokens import PythonTokens
from lmjax.data.records.tables.table import Problem
from lmjax.data.records.tag_schemes import is_tag, spans_of

CONLL = """-DOCSTART- -X- O

EU NNP B-ORG
rejects VBZ O

# NN O

"""
CONLLU = """# sent_id = 1
# text = I don't go.
1\tI\tI\tPRON\tPRP\t_\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
3.1\tnever\t_\t_\t_\t_\t_\t_\t_\t_
4\tgo away\tgo\tVERB\tVB\t_\t0\troot\t_\tSpaceAfter=No

1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""


def write(tmp_path, name, text):
  path = tmp_path / name
  data = text.encode()
  path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
  return path


@pytest.mark.parametrize("name", ["a.conll", "a.conll.gz"])
def test_columns_are_lists_by_number(tmp_path, name):
  path = write(tmp_path, name, CONLL)
  first, second = FileTable([path], Conll(), tmp_path)
  assert first.where == f"{path}:3"
  assert first.fields == {
    "0": ["EU", "rejects"],
    "1": ["NNP", "VBZ"],
    "2": ["B-ORG", "O"],
  }
  assert second.fields == {"0": ["#"], "1": ["NN"], "2": ["O"]}


def test_between_tabs_blanks_are_text(tmp_path):
  path = write(tmp_path, "a.conll", "New York\tB\r\n\tO\r\n")
  (only,) = FileTable([path], Conll(), tmp_path)
  assert only.fields == {"0": ["New York", ""], "1": ["B", "O"]}


@pytest.mark.parametrize("name", ["a.conllu", "a.conllu.gz"])
def test_words_of_universal_dependencies(tmp_path, name):
  path = write(tmp_path, name, CONLLU)
  first, second = FileTable([path], Conllu(), tmp_path)
  assert first.fields["form"] == ["I", "do", "n't", "go away"]
  assert first.fields["1"] == first.fields["form"]
  assert first.fields["upos"] == ["PRON", "AUX", "PART", "VERB"]
  assert first.fields["misc"] == ["_", "_", "_", "SpaceAfter=No"]
  assert second.fields["form"] == ["#"]
  assert second.where == f"{path}:10"


@pytest.mark.parametrize(
  ("kind", "text", "line", "reason"),
  [
    (Conll, "a X\nb\n\nc X\n", 2, "it has 1 column, and not 2"),
    (Conll, "a X\nb X Y\n\nc X\n", 2, "it has 3 columns, and not 2"),
    (Conllu, CONLLU + "2\ta\tX\n", 11, "it has 3 columns, and not 10"),
  ],
)
def test_a_sentence_that_lacks_columns_is_a_problem(
  tmp_path, kind, text, line, reason
):
  path = write(tmp_path, "a.txt", text)
  records = list(FileTable([path], kind(), tmp_path))
  assert Problem(f"{path}:{line}", reason) in records
  assert len(records) == 2  # and the other sentence is there


def test_python_has_lines_of_tokens_with_tags_and_chunks():
  table = PythonTokens()
  tags = set()
  for record in table:
    fields = record.fields
    assert len({len(column) for column in fields.values()}) == 1
    assert all(map(is_tag, fields["chunk"]))
    tags |= set(fields["tag"])
    for start, end, _ in spans_of(fields["chunk"]):
      assert set(fields["token"][start + 1 : end : 2]) <= {"."}
  assert sum(1 for _ in table) > 1000
  assert tags == {
    *("KEYWORD", "NUMBER", "STRING", "OPERATOR", "DEFINITION", "METHOD"),
    *("FUNCTION", "ATTRIBUTE", "ARGUMENT", "NAME"),
  }
  assert table.fingerprint == PythonTokens().fingerprint
