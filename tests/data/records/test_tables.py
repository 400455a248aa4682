# SPDX-License-Identifier: Apache-2.0
import csv
import gzip
import io
import json
import lzma

import numpy as np
import pytest
from ml_collections import ConfigDict

from lmjax.config import defaults
from lmjax.data.records.tables import FILE_KINDS, TABLES
from lmjax.data.records.tables.delimited import CommaSeparated, TabSeparated
from lmjax.data.records.tables.file_table import FileTable
from lmjax.data.records.tables.json_lines import JSONLines
from lmjax.data.records.tables.lines import numbered
from lmjax.data.records.tables.portion import Portion
from lmjax.data.records.tables.requests import read_requests
from lmjax.data.records.tables.table import Problem, Record
from lmjax.data.sources.text_sources import digest_files
from lmjax.errors import UserError


def read(format, data: bytes) -> list[Record | Problem]:
  return list(format.read(numbered("f", data.splitlines(keepends=True))))


def data_of(path, **changes) -> ConfigDict:
  config = defaults.get_config("recurrent_encoder", "classification")
  config.data.update(dict(path=str(path)) | changes)
  return config.data


def test_tabs_divide_columns_and_nothing_is_quoted():
  found = read(TabSeparated(), b'\xef\xbb\xbfa\t"b\r\n\n \t\nc\t\xc3\xa9" \n')
  assert found == [
    Record("f:1", {"0": "a", "1": '"b'}),
    Record("f:4", {"0": "c", "1": 'é" '}),
  ]


def test_a_header_names_columns_that_keep_their_numbers():
  for format in (TabSeparated(header=True), CommaSeparated(header=True)):
    mark = b"\t" if isinstance(format, TabSeparated) else b","
    data = b"label\ttext\n1\tone\n".replace(b"\t", mark)
    (record,) = read(format, data)
    assert record.where == "f:2"
    assert record.fields == {
      "0": "1",
      "1": "one",
      "label": "1",
      "text": "one",
    }


@pytest.mark.parametrize("header", [False, True])
def test_a_record_of_other_columns_than_the_first_is_a_problem(header):
  found = read(TabSeparated(header), b"a\tb\nc\nd\te\tf\ng\th\n")
  problems = [Problem("f:2", "it has 1 column, and f:1 has 2")]
  problems += [Problem("f:3", "it has 3 columns, and f:1 has 2")]
  assert [x for x in found if isinstance(x, Problem)] == problems
  assert [x.where for x in found if isinstance(x, Record)] == (
    ["f:4"] if header else ["f:1", "f:4"]
  )


def test_names_that_are_alike_are_a_problem():
  found = read(CommaSeparated(header=True), b"a,a\n1,2\n")
  assert found[0] == Problem("f:1", "it names two columns alike")


def test_quotes_hold_commas_quotes_and_ends_of_lines():
  data = b'1,"a, ""b"""\r\n2,"two\r\nlines\n\nhere"\r\n\r\n3,"",\n4,c\n'
  assert read(CommaSeparated(), data) == [
    Record("f:1", {"0": "1", "1": 'a, "b"'}),
    Record("f:2", {"0": "2", "1": "two\nlines\n\nhere"}),
    Problem("f:7", "it has 3 columns, and f:1 has 2"),
    Record("f:8", {"0": "4", "1": "c"}),
  ]


def test_broken_quotes_are_a_problem_where_the_record_begins():
  data = b'1,"a" b\n2,c\n3,"never\nclosed\n'
  first, second, third = read(CommaSeparated(), data)
  assert first.where == "f:1" and "quotes are broken" in first.reason
  assert second == Record("f:2", {"0": "2", "1": "c"})
  assert third.where == "f:3" and "unexpected end of data" in third.reason


def test_a_text_may_be_long():
  text = "x" * 200_000  # the csv module's own limit is 131,072
  (record,) = read(CommaSeparated(), f'"{text}",1\n'.encode())
  assert record.fields["0"] == text


def test_what_python_writes_as_csv_is_read_back():
  rng = np.random.default_rng(0)
  rows = [
    ["".join(rng.choice(list('a,"\n;é '), 6)) for _ in range(3)]
    for _ in range(50)
  ]
  file = io.StringIO()
  csv.writer(file, lineterminator="\n").writerows(rows)
  found = read(CommaSeparated(), file.getvalue().encode())
  assert [list(record.fields.values()) for record in found] == rows


def test_json_has_texts_numbers_and_lists_by_key():
  line = (
    '{"text": "one \\ud83d", "label": 1, "score": 3.50, "yes": true,'
    ' "tags": ["A", 2, null], "none": null, "more": {"a": 1}}'
  )
  (record,) = read(JSONLines(), f"\n{line}\r\n".encode())
  assert record == Record(
    "f:2",
    {
      "text": "one \N{REPLACEMENT CHARACTER}",
      "label": "1",
      "score": "3.5",
      "yes": "true",
      "tags": ["A", "2", ""],
      "none": "",
      "more": '{"a": 1}',
    },
  )


@pytest.mark.parametrize(
  "line",
  ["{", "[1]", '"text"', "{'a': 1}", "[" * 9999, f'{{"a": {"1" * 5000}}}'],
)
def test_a_line_that_is_no_json_object_is_a_problem(line):
  found = read(JSONLines(), f'{line}\n{{"a": "b"}}'.encode())
  assert found == [
    Problem("f:1", "it is no JSON object"),
    Record("f:2", {"a": "b"}),
  ]


@pytest.mark.parametrize("format", [TabSeparated(), CommaSeparated()])
def test_a_line_that_is_not_utf8_is_a_problem(format):
  found = read(format, b"one\n a\xff\ntwo\n")
  assert [x.where for x in found] == ["f:1", "f:2", "f:3"]
  assert found[1] == Problem("f:2", "it is not UTF-8 at byte 2")


def test_a_quoted_line_that_is_not_utf8_spoils_its_record_alone():
  found = read(CommaSeparated(), b'"a\n\xff\nb"\nc\n')
  assert found == [
    Problem("f:2", "it is not UTF-8 at byte 0"),
    Record("f:4", {"0": "c"}),
  ]


def test_files_are_read_one_after_the_other_compressed_or_not(tmp_path):
  (tmp_path / "a.tsv").write_bytes(b"1\tone\n")
  (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(b"2\ttwo\n"))
  (tmp_path / "c.tsv.xz").write_bytes(lzma.compress(b"3\tthree"))
  (tmp_path / "d.tsv").write_bytes(b"")
  (tmp_path / "e.csv").write_bytes(b"no,tsv\n")
  table = TABLES["tsv"](data_of(tmp_path), tmp_path / "cache")["train"]
  assert [r.fields["1"] for r in table] == ["one", "two", "three"]
  assert [r.where.rpartition("/")[2] for r in table] == [
    "a.tsv:1",
    "b.tsv.gz:1",
    "c.tsv.xz:1",
  ]


def test_a_truncated_archive_is_named(tmp_path):
  path = tmp_path / "a.tsv.gz"
  lines = "".join(f"{number}\n" for number in range(99_999))
  path.write_bytes(gzip.compress(lines.encode())[:-99])
  with pytest.raises(UserError, match="a.tsv.gz cannot be read"):
    list(FileTable([path], TabSeparated(), tmp_path))


def test_fingerprints_change_with_content_and_reading_not_with_place(tmp_path):
  def fingerprint(name, text, **changes):
    (tmp_path / name).write_text(text)
    data = data_of(tmp_path / name, **changes)
    kind = name.split(".")[1]
    return TABLES[kind](data, tmp_path / "cache")["train"].fingerprint

  first = fingerprint("a.tsv", "a\tb\n")
  assert fingerprint("b.tsv", "a\tb\n") == first
  others = [
    fingerprint("c.tsv", "a\tc\n"),
    fingerprint("d.tsv", "a\tb\n", header=True),
    fingerprint("e.csv", "a\tb\n"),
    fingerprint("f.jsonl", "a\tb\n"),
  ]
  assert len({first, *others}) == 5


def test_splits_are_files_by_their_names(tmp_path):
  for name in ("x.train", "x.dev", "y.train", "notes"):
    (tmp_path / f"{name}.tsv").write_text(f"{name}\n")
  tables = TABLES["tsv"](data_of(tmp_path, split_by="name"), tmp_path)
  found = {k: [r.fields["0"] for r in v] for k, v in tables.items()}
  assert found == {"train": ["x.train", "y.train"], "valid": ["x.dev"]}
  data = data_of(tmp_path, split_by="name", train_files="*no*such*")
  with pytest.raises(UserError, match="matches data.train_files="):
    TABLES["tsv"](data, tmp_path)
  with pytest.raises(UserError, match="data.path is empty; give a file"):
    TABLES["tsv"](data_of(""), tmp_path)


def write_tfds(folder, splits):
  """Write a TFDS dataset of records with features of all kinds."""
  import tensorflow_datasets as tfds
  from array_record.python.array_record_module import ArrayRecordWriter

  f = tfds.features
  features = f.FeaturesDict(
    {
      "text": f.Text(),
      "label": f.ClassLabel(names=["neg", "pos"]),
      "tags": f.Sequence(f.ClassLabel(names=["A", "B"])),
      "tokens": f.Sequence({"word": f.Text(), "head": f.Scalar(np.int64)}),
      "score": f.Scalar(np.float32),
    }
  )
  folder = folder / "kinds" / "1.0.0"
  folder.mkdir(parents=True)
  infos = []
  for split, records in splits.items():
    example_batch = tfds.core.ShardedFileTemplate(
      data_dir=folder,
      dataset_name="kinds",
      split=split,
      filetype_suffix="array_record",
    )
    (path,) = example_batch.sharded_filepaths(1)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
      example = features.encode_example(record)
      writer.write(features.serialize_example(example))
    writer.close()
    infos.append(
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=[len(records)],
        num_bytes=1,
        filename_template=example_batch,
      )
    )
  tfds.folder_dataset.write_metadata(
    data_dir=folder, features=features, split_infos=infos, check_data=False
  )


def test_tfds_features_become_texts_and_lists(tmp_path):
  record = dict(
    text="Grüße",
    label="pos",
    tags=["B", "A"],
    tokens=[dict(word="one", head=2), dict(word="two", head=0)],
    score=0.5,
  )
  unknown = record | dict(label=-1, tags=[], tokens=[])
  write_tfds(tmp_path, {"train": [record, unknown], "validation": [record]})
  data = data_of("", name="kinds", data_dir=str(tmp_path))
  tables = TABLES["tfds"](data, tmp_path / "cache")
  first, second = tables["train"]
  assert first == Record(
    "kinds/1.0.0 train:0",
    {
      "text": "Grüße",
      "label": "pos",
      "tags": ["B", "A"],
      "tokens/word": ["one", "two"],
      "tokens/head": ["2", "0"],
      "score": "0.5",
    },
  )
  assert second.fields["label"] == "" and second.fields["tags"] == []
  assert tables.keys() == {"train", "valid"}
  prints = {table.fingerprint for table in tables.values()}
  assert len(prints) == 2
  with pytest.raises(UserError, match="no TFDS dataset 'other'"):
    TABLES["tfds"](data_of("", name="other"), tmp_path)
  with pytest.raises(UserError, match="data.name is empty"):
    TABLES["tfds"](data_of(""), tmp_path)


class Table(list):
  fingerprint = "f"


def numbers(count: int) -> Table:
  """Records whose texts are numbers, each twice, with different labels."""
  return Table(
    Record(f"{n}", {"text": str(n // 2), "label": str(n)}) for n in range(count)
  )


def test_portions_are_disjoint_and_together_everything():
  table = numbers(2000)
  cuts = [0.0, 0.1, 0.35, 1.0]
  parts = [
    list(Portion(table, ("text",), low, high))
    for low, high in zip(cuts, cuts[1:], strict=False)
  ]
  assert sorted(sum(parts, []), key=lambda r: int(r.where)) == list(table)
  sizes = [len(part) / 2000 for part in parts]
  assert np.allclose(sizes, [0.1, 0.25, 0.65], atol=0.05)


def test_records_that_are_alike_in_the_columns_are_on_one_side():
  part = list(Portion(numbers(2000), ("text",), 0.0, 0.5))
  texts = [record.fields["text"] for record in part]
  assert len(part) == 2 * len(set(texts))
  by_label = list(Portion(numbers(2000), ("label",), 0.0, 0.5))
  texts = [record.fields["text"] for record in by_label]
  assert len(by_label) < 2 * len(set(texts))


def test_a_smaller_portion_is_inside_a_larger_of_the_same_salt():
  def part(high, salt):
    table = numbers(999)
    return {r.where for r in Portion(table, ("text",), 0.0, high, salt)}

  assert part(0.2, "a") < part(0.5, "a") < part(1.0, "a")
  assert not part(0.2, "a") <= part(0.5, "b")


def test_problems_are_in_every_portion_and_fingerprints_tell_portions_apart():
  table = Table([Problem("f:1", "broken"), *numbers(10)])
  parts = [
    Portion(table, ("text",), 0.0, 0.5),
    Portion(table, ("text",), 0.5, 1.0),
    Portion(table, ("label",), 0.0, 0.5),
    Portion(table, ("text",), 0.0, 0.5, "salt"),
  ]
  assert all(next(iter(part)) == table[0] for part in parts)
  assert len({part.fingerprint for part in parts}) == 4


@pytest.mark.parametrize(
  ("name", "data", "columns"),
  [
    ("a.txt", b"a\tb\n\nc\td\r\n", ["x", "y"]),
    ("a.tsv", b"a\tb\nc\td\n", ["0", "1"]),
    ("a.csv.gz", gzip.compress(b'"a",b\nc,d\n', mtime=0), ["0", "1"]),
    (
      "a.jsonl",
      b"".join(
        json.dumps(dict(x=x, y=y)).encode() + b"\n" for x, y in ("ab", "cd")
      ),
      ["x", "y"],
    ),
  ],
)
def test_requests_are_read_by_what_a_files_name_ends_in(
  tmp_path, name, data, columns
):
  (tmp_path / name).write_bytes(data)
  found = list(read_requests(str(tmp_path / name), "", data_of(""), ["x", "y"]))
  texts = [[record.fields[column] for column in columns] for record in found]
  assert texts == [["a", "b"], ["c", "d"]]


def test_plain_requests_have_a_text_for_each_column(tmp_path):
  path = tmp_path / "a"
  path.write_text("one\ttwo\nalone\n")
  one = list(read_requests(str(path), "lines", data_of(""), ["x"]))
  assert [r.fields for r in one] == [{"x": "one\ttwo"}, {"x": "alone"}]
  two = list(read_requests(str(path), "lines", data_of(""), ["x", "y"]))
  assert two[0].fields == {"x": "one", "y": "two"}
  reason = "it has 1, and not 2 texts between tabs, x, y"
  assert two[1] == Problem(f"{path}:2", reason)


def test_every_kind_of_file_has_a_table_and_a_digest(tmp_path):
  assert FILE_KINDS.keys() < TABLES.keys()
  for kind in FILE_KINDS:
    path = tmp_path / f"a{FILE_KINDS[kind].suffixes[0]}"
    path.write_text("")
    table = TABLES[kind](data_of(path), tmp_path)["train"]
    assert list(table) == []
    assert table.fingerprint.startswith(digest_files([path], tmp_path))
