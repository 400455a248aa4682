# SPDX-License-Identifier: Apache-2.0
"""Data sets by name; to add one, write a function here and name it below.

Each function gets the `data` section of a config and a folder to remember
things in, and returns a source for each of train, valid and test.
"""

from pathlib import Path

from ml_collections import ConfigDict

from lmjax.data.sources.splits import split_by_name, split_by_ratio
from lmjax.data.sources.text_sources import (
  JSONL_SUFFIXES,
  TEXT_SUFFIXES,
  TSV_SUFFIXES,
  JSONLines,
  PythonDocs,
  Source,
  TabSeparated,
  TextFiles,
  find_files,
  python_source_files,
)
from lmjax.data.sources.tfds import open_tfds
from lmjax.errors import UserError

Splits = dict[str, Source]


def _by_ratio(source: Source, config: ConfigDict) -> Splits:
  return split_by_ratio(source, config.valid_fraction, config.test_fraction)


def python_docs(config: ConfigDict, cache_dir: Path) -> Splits:
  """Open the language reference inside CPython, half a million characters."""
  del cache_dir
  return _by_ratio(PythonDocs(), config)


def python_source(config: ConfigDict, cache_dir: Path) -> Splits:
  """Open the standard library's own source, about twelve million characters."""
  return _by_ratio(TextFiles(python_source_files(), cache_dir), config)


def _files(config: ConfigDict, suffixes: tuple[str, ...], reader) -> Splits:
  paths = find_files(config.path, suffixes)
  if config.split_by == "ratio":
    return _by_ratio(reader(paths), config)
  patterns = dict(
    train=config.train_files, valid=config.valid_files, test=config.test_files
  )
  divided = split_by_name(paths, patterns)
  if not divided["train"]:
    raise UserError(
      f"no file under data.path={config.path} matches data.train_files="
      f"{config.train_files}; correct the pattern or set data.split_by=ratio."
    )
  return {split: reader(found) for split, found in divided.items()}


def text(config: ConfigDict, cache_dir: Path) -> Splits:
  """Open text files, one document each."""
  return _files(config, TEXT_SUFFIXES, lambda p: TextFiles(p, cache_dir))


def jsonl(config: ConfigDict, cache_dir: Path) -> Splits:
  """Open files with one JSON object a line, one document each line."""
  return _files(
    config,
    JSONL_SUFFIXES,
    lambda paths: JSONLines(paths, config.field, cache_dir),
  )


def tsv(config: ConfigDict, cache_dir: Path) -> Splits:
  """Open files with columns between tabs, one document each line."""
  return _files(
    config,
    TSV_SUFFIXES,
    lambda paths: TabSeparated(paths, config.field, cache_dir),
  )


def tfds(config: ConfigDict, cache_dir: Path) -> Splits:
  """Open a TFDS dataset by its own splits; by ratio if it has one alone."""
  splits = open_tfds(config.name, config.data_dir, config.field, cache_dir)
  return splits if len(splits) > 1 else _by_ratio(splits["train"], config)


DATASETS = {
  "python_docs": python_docs,
  "python_source": python_source,
  "text": text,
  "jsonl": jsonl,
  "tsv": tsv,
  "tfds": tfds,
}
