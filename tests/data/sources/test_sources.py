# SPDX-License-Identifier: Apache-2.0
import gzip
import json
import lzma
import os
from pathlib import Path

import pytest

from lmjax.data.sources.splits import split_by_name, split_by_ratio
from lmjax.data.sources.text_sources import (
  COMPRESSIONS,
  JSONLines,
  PythonDocs,
  TabSeparated,
  TextFiles,
  find_files,
  python_source_files,
  read_bytes,
)
from lmjax.data.text.datasets import DATASETS
from lmjax.errors import UserError


class Documents(list):
  fingerprint = "f"


def read(source) -> list[str]:
  return [source[index] for index in range(len(source))]


def test_tsv_reads_a_column_and_skips_empty_lines(tmp_path):
  (tmp_path / "a.tsv").write_text("1\tone é\n\n2\ttwo\t\n")
  source = TabSeparated([tmp_path / "a.tsv"], "1", tmp_path)
  assert read(source) == ["one é", "two"]
  for field in ("2", "text", "-1"):
    with pytest.raises(UserError, match="set data.field to one from 0 to 1"):
      read(TabSeparated([tmp_path / "a.tsv"], field, tmp_path))


def test_compressed_files_equal_plain_files(tmp_path):
  data = "Grüße\n".encode()
  (tmp_path / "a.txt").write_bytes(data)
  (tmp_path / "b.txt.gz").write_bytes(gzip.compress(data))
  (tmp_path / "c.txt.xz").write_bytes(lzma.compress(data))
  (tmp_path / "d.png").write_bytes(b"no text")
  paths = find_files(str(tmp_path), (".txt",))
  assert read(TextFiles(paths, tmp_path)) == ["Grüße\n"] * 3


def test_jsonl_reads_a_field_and_skips_empty_lines(tmp_path):
  lines = [json.dumps({"text": "é one"}), "", json.dumps({"text": "two"})]
  (tmp_path / "a.jsonl").write_text("\n".join(lines))
  (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "three"}\n'))
  paths = find_files(str(tmp_path), (".jsonl",))
  assert read(JSONLines(paths, "text", tmp_path)) == ["é one", "two", "three"]
  with pytest.raises(UserError, match="no text under 'body'"):
    read(JSONLines(paths, "body", tmp_path))


def test_lone_surrogate_is_replaced(tmp_path):
  (tmp_path / "a.jsonl").write_text('{"text": "cut \\ud83d off"}')
  source = JSONLines([tmp_path / "a.jsonl"], "text", tmp_path)
  assert read(source) == ["cut \N{REPLACEMENT CHARACTER} off"]


def test_lengths_are_read_in_the_order_of_files(tmp_path, monkeypatch):
  """Compressed files are opened one after the other, not in shuffled order."""
  paths = []
  for name in "ab":
    lines = "".join(f'{{"text": "{name}{n}"}}\n' for n in range(50))
    paths.append(tmp_path / f"{name}.jsonl.gz")
    paths[-1].write_bytes(gzip.compress(lines.encode()))
  opened = []
  plain = gzip.open
  monkeypatch.setitem(
    COMPRESSIONS, ".gz", lambda *a: opened.append(a[0]) or plain(*a)
  )
  read_bytes.cache_clear()
  parts = split_by_ratio(JSONLines(paths, "text", tmp_path), 0.2, 0.2)
  assert sum(len(part) for part in parts.values()) >= 100
  assert len(opened) <= 5


def test_invalid_utf8_raises_with_its_byte(tmp_path):
  (tmp_path / "a.txt").write_bytes(b"good \xff bad")
  source = TextFiles([tmp_path / "a.txt"], tmp_path)
  with pytest.raises(UserError, match="a.txt is not UTF-8 at byte 5"):
    source[0]


def test_truncated_archive_raises(tmp_path):
  (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"x" * 999)[:-9])
  with pytest.raises(UserError, match="cannot be read"):
    TextFiles([tmp_path / "a.txt.gz"], tmp_path)[0]


def test_fingerprints_depend_on_content_not_on_paths(tmp_path):
  def fingerprint(name, text):
    path = tmp_path / name
    path.write_text(text)
    return TextFiles([path], tmp_path).fingerprint

  assert fingerprint("a.txt", "x") == fingerprint("b.txt", "x")
  assert fingerprint("a.txt", "x") != fingerprint("b.txt", "y")
  before = TextFiles([tmp_path / "a.txt"], tmp_path).fingerprint
  (tmp_path / "a.txt").write_text("z")
  os.utime(tmp_path / "a.txt", ns=(1, 1))
  assert TextFiles([tmp_path / "a.txt"], tmp_path).fingerprint != before


def test_standard_library_sources_have_documents():
  docs = PythonDocs()
  assert len(docs) > 50 and "statement" in docs[0]
  files = python_source_files()
  assert len(files) > 500 and any(path.name == "argparse.py" for path in files)
  assert not any("test" in path.parts for path in files)


def test_ratio_splits_one_document_from_start_to_end():
  text = "".join(map(str, range(10)))
  parts = split_by_ratio(Documents([text]), 0.2, 0.1)
  assert {k: read(v) for k, v in parts.items()} == {
    "train": ["0123456"],
    "valid": ["78"],
    "test": ["9"],
  }


def test_ratio_puts_each_character_in_one_split():
  documents = Documents([f"<{n}>" * (n % 5 + 1) for n in range(40)])
  parts = split_by_ratio(documents, 0.25, 0.25)
  pieces = {split: read(part) for split, part in parts.items()}
  total = sum(map(len, documents))
  lengths = {k: sum(map(len, v)) for k, v in pieces.items()}
  assert sum(lengths.values()) == total
  assert abs(lengths["valid"] - total / 4) <= 1
  whole = [p for split in pieces.values() for p in split if p in documents]
  assert len(whole) >= len(documents) - 2  # two cuts at most
  # Validation is no block of neighbors.
  numbers = [int(p[1:].split(">")[0]) for p in pieces["valid"] if p[0] == "<"]
  assert max(numbers) - min(numbers) > 2 * len(numbers)


def test_split_by_name_as_documented():
  paths = [Path("a/train.txt"), Path("a/dev.txt"), Path("a/notes.txt")]
  patterns = {"train": "train*", "valid": "valid*,dev*"}
  assert split_by_name(paths, patterns) == {
    "train": [Path("a/train.txt")],
    "valid": [Path("a/dev.txt")],
  }


def test_config_splits_files_by_name(tiny_config, text_folder, tmp_path):
  config = tiny_config("lstm").data
  config.path, config.split_by = str(text_folder), "name"
  splits = DATASETS["text"](config, tmp_path)
  assert read(splits["valid"])[0].startswith("300 squared")
  config.train_files = "nothing*"
  with pytest.raises(UserError, match="matches data.train_files"):
    DATASETS["text"](config, tmp_path)


@pytest.mark.parametrize("pattern", ["", "/no/such/*.txt", "/no/such/folder"])
def test_pattern_without_files_raises(pattern):
  with pytest.raises(UserError, match="data.path"):
    find_files(pattern, (".txt",))
