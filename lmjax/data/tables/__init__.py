# SPDX-License-Identifier: Apache-2.0
"""Tables by name; to add one, write a function and name it below.

Each function gets the `data` section of a config and a folder to remember
things in, and returns a table for each split that there is, train at least.
What is missing is taken from it; see lmjax.data.record_corpus.
"""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from lmjax.data.sources import TSV_SUFFIXES, find_files
from lmjax.data.splits import split_by_name
from lmjax.data.tables.delimited import TabSeparatedTable
from lmjax.data.tables.table import Table
from lmjax.errors import UserError

Tables = dict[str, Table]


def _files(
  config: ConfigDict,
  suffixes: tuple[str, ...],
  read: Callable[[list[Path]], Table],
) -> Tables:
  """Divide the files of a config by their names, or take all for train."""
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
      f"{config.train_files}; mend the pattern or set data.split_by=ratio."
    )
  return {split: read(found) for split, found in divided.items() if found}


def tsv(config: ConfigDict, cache_dir: Path) -> Tables:
  """Open files with columns between tabs, one record a line."""

  def read(paths: list[Path]) -> Table:
    return TabSeparatedTable(paths, config.header, cache_dir)

  return _files(config, TSV_SUFFIXES, read)


TABLES: dict[str, Callable[[ConfigDict, Path], Tables]] = {
  "tsv": tsv,
}
