# SPDX-License-Identifier: Apache-2.0
import gzip

import pytest

from lmjax.config import defaults
from lmjax.data.records.tables import TABLES
from lmjax.data.records.tables.number_words import (
  LARGE,
  SMALL,
  NumberWords,
  spell,
)
from lmjax.errors import UserError


@pytest.fixture
def text_files(tmp_path):
  """Write two splits of three lines, one of them compressed in part."""
  for split in ("train", "val"):
    for side in ("en", "de"):
      lines = "".join(f"{split} {side} {n}\n" for n in range(3))
      (tmp_path / f"{split}.{side}").write_text(lines)
  plain = tmp_path / "train.de"
  with gzip.open(tmp_path / "train.de.gz", "wt") as file:
    file.write(plain.read_text())
  plain.unlink()
  (tmp_path / "notes.txt").write_text("not a side")
  return tmp_path


def tables(path, cache, **changes):
  config = defaults.get_config(model="recurrent_seq2seq").data
  config.source, config.path, config.split_by = "parallel", str(path), "name"
  config.columns = dict(source="en", target="de")
  config.update(changes)
  return TABLES["parallel"](config, cache)


def test_lines_of_two_files_are_records(text_files, tmp_path):
  found = tables(text_files, tmp_path / "cache")
  assert found.keys() == {"train", "valid"}
  records = list(found["train"])
  assert [r.fields for r in records] == [
    {"en": f"train en {n}", "de": f"train de {n}"} for n in range(3)
  ]
  assert records[1].where == f"{text_files / 'train.en'}:2"
  assert list(found["valid"])[0].fields["de"] == "val de 0"


def test_a_glob_and_one_table_for_all(text_files, tmp_path):
  found = tables(
    text_files / "*.[ed][ne]*", tmp_path / "cache", split_by="ratio"
  )
  assert len(list(found["train"])) == 6


def test_the_digest_is_of_content_and_of_sides(text_files, tmp_path):
  first = tables(text_files, tmp_path / "cache")["train"].fingerprint
  turned = dict(columns=dict(source="de", target="en"))
  other = tables(text_files, tmp_path / "cache", **turned)["train"]
  assert other.fingerprint != first
  (text_files / "train.en").write_text("other\n" * 3)
  changed = tables(text_files, tmp_path / "cache")["train"].fingerprint
  assert changed != first


def test_unequal_files_are_named_both(text_files, tmp_path):
  (text_files / "train.en").write_text("one\ntwo\n")
  with pytest.raises(UserError, match=r"train.en has 2 .*train.de.gz has 3"):
    list(tables(text_files, tmp_path / "cache")["train"])


def test_a_file_without_its_other_is_named(text_files, tmp_path):
  (text_files / "val.de").unlink()
  with pytest.raises(UserError, match=r"val.en has no val.de beside it"):
    tables(text_files, tmp_path / "cache")


def test_files_of_other_endings_are_named(text_files, tmp_path):
  with pytest.raises(UserError, match="notes.txt ends in none of en, de"):
    tables(text_files / "*.txt", tmp_path / "cache", split_by="ratio")


def value(words):
  """Read a number back, by other rules than it was spelled by."""
  names = {spell(n): n for n in range(20)} | {
    spell(n): n for n in range(20, 100, 10)
  }
  total = part = 0
  for word in words.split():
    if word == "thousand":
      total, part = 1000 * part, 0
    elif word == "hundred":
      part *= 100
    elif word != "and":
      part += names[word]
  return total + part


def test_number_words_say_their_numbers():
  records = list(NumberWords())
  texts = [record.fields["source"] for record in records]
  numbers = [int(record.fields["target"]) for record in records]
  assert len(set(numbers)) == len(numbers) == 2 * SMALL
  assert 0 == min(numbers) < LARGE // 2 < max(numbers) < LARGE
  assert [value(text) for text in texts] == numbers
  assert spell(304) == "three hundred and four"
  assert spell(21_304) == "twenty one thousand three hundred and four"
  assert spell(100_007) == "one hundred thousand and seven"
  assert records == list(NumberWords())
