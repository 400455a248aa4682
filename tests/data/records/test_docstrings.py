# SPDX-License-Identifier: Apache-2.0
"""Docstrings of the standard library as a table."""

import collections
import sys

from lmjax.config import defaults
from lmjax.config.finalize import finalize
from lmjax.data.records.tables.docstrings import (
  FEWEST,
  DocstringTable,
  read_docstrings,
)
from lmjax.task_specs.build import open_corpus


def test_packages_have_enough_docstrings_and_no_text_is_there_twice():
  found = read_docstrings()
  labels = collections.Counter(label for _, _, label in found)
  texts = [text for _, text, _ in found]
  assert len(labels) > 20 and min(labels.values()) >= FEWEST
  assert len(set(texts)) == len(texts) and all(map(str.strip, texts))
  import tarfile

  assert ("tarfile", tarfile.TarInfo.__doc__.split("\n")[0]) in {
    (label, text.split("\n")[0]) for _, text, label in found
  }


def test_what_is_remembered_is_what_was_read(tmp_path):
  before = set(sys.modules)
  first, again = DocstringTable(tmp_path), DocstringTable(tmp_path)
  assert list(first) == list(again) and first.fingerprint == again.fingerprint
  found = [(r.where, r.fields["text"], r.fields["label"]) for r in again]
  assert found == read_docstrings()
  assert not {"turtle", "idlelib", "tkinter"} & (set(sys.modules) - before)


def test_no_text_is_in_two_splits(tmp_path):
  config = finalize(defaults.get_config(model="text_cnn"))
  corpus = open_corpus(config, None, {}, tmp_path)
  splits = {
    split: {row["text"] for _, row in corpus.rows(split)}
    for split in ("train", "valid", "test")
  }
  assert (
    not splits["train"] & splits["valid"] | splits["test"] & splits["train"]
  )
  total = sum(map(len, splits.values()))
  assert total == len(read_docstrings())
  for split in ("valid", "test"):
    assert 0.08 < len(splits[split]) / total < 0.12
