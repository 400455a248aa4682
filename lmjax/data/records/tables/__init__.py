# SPDX-License-Identifier: Apache-2.0
"""Tables by name; to add one, write a function and name it below.

Each function gets the `data` section of a config and a folder to remember
things in, and returns a table for each split that there is, train at least.
Splits without files are taken from the training split; see
lmjax.data.records.record_corpus. A table that reads lines of files needs only
a format.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from lmjax.data.records.tables.conll import Conll, Conllu
from lmjax.data.records.tables.delimited import CommaSeparated, TabSeparated
from lmjax.data.records.tables.docstrings import DocstringTable
from lmjax.data.records.tables.file_table import FileTable, Format
from lmjax.data.records.tables.json_lines import JSONLines
from lmjax.data.records.tables.number_words import NumberWords
from lmjax.data.records.tables.parallel_text import ParallelText
from lmjax.data.records.tables.python_tokens import PythonTokens
from lmjax.data.records.tables.signatures import PythonSignatures
from lmjax.data.records.tables.table import Table
from lmjax.data.records.tables.tfds_records import TFDSTable
from lmjax.data.sources.splits import split_by_name
from lmjax.data.sources.text_sources import (
  JSONL_SUFFIXES,
  TSV_SUFFIXES,
  find_files,
)
from lmjax.data.sources.tfds import available_splits, open_builder
from lmjax.errors import UserError

Tables = dict[str, Table]


class FileKind(NamedTuple):
  """A kind of file that records lie in.

  Attributes:
    suffixes: what the names of such files end in.
    format: makes how they are written of the `data` section of a config.
  """

  suffixes: tuple[str, ...]
  format: Callable[[ConfigDict], Format]


FILE_KINDS = {
  "tsv": FileKind(TSV_SUFFIXES, lambda data: TabSeparated(data.header)),
  "csv": FileKind((".csv",), lambda data: CommaSeparated(data.header)),
  "jsonl": FileKind(JSONL_SUFFIXES, lambda data: JSONLines()),
  "conll": FileKind((".conll", ".bio", ".iob"), lambda data: Conll()),
  "conllu": FileKind((".conllu",), lambda data: Conllu()),
}


def _files(kind: FileKind, config: ConfigDict, cache_dir: Path) -> Tables:
  """Open files of one kind."""

  def read(paths: list[Path]) -> Table:
    return FileTable(paths, kind.format(config), cache_dir)

  return _divide(config, kind.suffixes, read)


def _divide(
  config: ConfigDict,
  suffixes: tuple[str, ...],
  read: Callable[[list[Path]], Table],
) -> Tables:
  """Divide files by their names, or read all of them as train."""
  paths = find_files(config.path, suffixes)
  if config.split_by == "ratio":
    return {"train": read(paths)}
  patterns = dict(
    train=config.train_files, valid=config.valid_files, test=config.test_files
  )
  divided = split_by_name(paths, patterns)
  if not divided["train"]:
    raise UserError(
      f"no file under data.path={config.path} matches data.train_files="
      f"{config.train_files}; correct the pattern or set data.split_by=ratio."
    )
  return {split: read(found) for split, found in divided.items() if found}


def tfds(config: ConfigDict, cache_dir: Path) -> Tables:
  """Open a TFDS dataset by its own splits."""
  builder = open_builder(config.name, config.data_dir)
  return {
    split: TFDSTable(builder, theirs, cache_dir)
    for split, theirs in available_splits(builder).items()
  }


def python_tokens(config: ConfigDict, cache_dir: Path) -> Tables:
  """Open lines of the standard library, token by token."""
  del config, cache_dir
  return {"train": PythonTokens()}


def python_signatures(config: ConfigDict, cache_dir: Path) -> Tables:
  """Open the functions of the standard library."""
  del config
  return {"train": PythonSignatures(cache_dir)}


def parallel(config: ConfigDict, cache_dir: Path) -> Tables:
  """Open pairs of files whose lines belong together: train.en, train.de."""
  sides = tuple(config.columns.values())

  def read(paths: list[Path]) -> Table:
    return ParallelText(paths, sides, cache_dir)

  return _divide(config, tuple(f".{side}" for side in sides), read)


def number_words(config: ConfigDict, cache_dir: Path) -> Tables:
  """Spell numbers out; nothing is read."""
  del config, cache_dir
  return {"train": NumberWords()}


def python_docstrings(config: ConfigDict, cache_dir: Path) -> Tables:
  """Open the docstrings of CPython's own modules."""
  del config
  return {"train": DocstringTable(cache_dir)}


TABLES: dict[str, Callable[[ConfigDict, Path], Tables]] = {
  **{k: functools.partial(_files, kind) for k, kind in FILE_KINDS.items()},
  "tfds": tfds,
  "python_tokens": python_tokens,
  "python_signatures": python_signatures,
  "parallel": parallel,
  "number_words": number_words,
  "python_docstrings": python_docstrings,
}
