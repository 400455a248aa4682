# SPDX-License-Identifier: Apache-2.0
import sys

import pytest

from lmjax.data.sources.tfds import open_tfds
from lmjax.data.sources.tfds_writer import write_dataset
from lmjax.errors import UserError


class Documents(list):
  fingerprint = "f"


class Interrupted(Documents):
  """A source that fails midway and counts the documents read."""

  def __init__(self, documents, limit):
    super().__init__(documents)
    self.limit, self.reads = limit, 0

  def __getitem__(self, index):
    self.reads += 1
    if self.reads > self.limit:
      raise KeyboardInterrupt
    return super().__getitem__(index)


TEXTS = Documents([f"document {n} \N{SNOWMAN}" for n in range(10)])


def read(source):
  return [source[index] for index in range(len(source))]


def test_reads_written_datasets_without_tensorflow(tmp_path):
  splits = dict(train=TEXTS, validation=Documents(["v"]), test=Documents())
  write_dataset("numbers", tmp_path, splits, shard_size=4)
  found = open_tfds("numbers", str(tmp_path), "text", tmp_path)
  assert {split: read(source) for split, source in found.items()} == {
    "train": list(TEXTS),
    "valid": ["v"],
  }
  assert "tensorflow" not in sys.modules


def test_interrupted_conversion_resumes(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    write_dataset("n", tmp_path, {"train": Interrupted(TEXTS, 7)}, 3)
  finished = list((tmp_path / "n" / "1.0.0").glob("*.array_record-*-of-00004"))
  assert len(finished) == 2
  begun = list((tmp_path / "n" / "1.0.0").glob("*.partial"))
  assert [path.name for path in begun] == [
    "n-train.array_record-00002-of-00004.partial"  # of any process
  ]
  rest = Interrupted(TEXTS, 99)
  write_dataset("n", tmp_path, {"train": rest}, 3)
  assert rest.reads == 4
  assert not list((tmp_path / "n" / "1.0.0").glob("*.partial"))
  assert read(open_tfds("n", str(tmp_path), "text", tmp_path)["train"]) == TEXTS


def test_shards_of_another_text_are_not_overwritten(tmp_path):
  write_dataset("n", tmp_path, {"train": TEXTS}, 4)
  other = Documents(["x"])
  other.fingerprint = "g"
  with pytest.raises(UserError, match="another text"):
    write_dataset("n", tmp_path, {"train": other}, 4)


def test_missing_dataset_or_feature_raises(tmp_path):
  write_dataset("n", tmp_path, {"train": TEXTS}, 4)
  with pytest.raises(UserError, match="no TFDS dataset 'm'"):
    open_tfds("m", str(tmp_path), "text", tmp_path)
  with pytest.raises(UserError, match="no feature 'body'"):
    open_tfds("n", str(tmp_path), "body", tmp_path)
