# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Datasets without TensorFlow: array_record files on disk.

The library is imported on demand, because its import takes half a second.
"""

import functools
import os
from pathlib import Path
from typing import Any

from lmjax.data.sources.text_sources import Source, decode, digest_files
from lmjax.errors import UserError

# Names of splits in TFDS datasets in order of preference, by the name in lmjax.
SPLIT_NAMES = {
  "train": ("train",),
  "valid": ("valid", "validation", "dev"),
  "test": ("test",),
}


class TFDSDocuments:
  """The text field of one split of a TFDS dataset."""

  def __init__(self, builder: Any, split: str, field: str, cache_dir: Path):
    self._builder, self._split, self._field = builder, split, field
    self._cache_dir = cache_dir

  @functools.cached_property
  def _records(self) -> Any:
    return self._builder.as_data_source(self._split)

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the split's files and of the field's name."""
    digest = digest_split(self._builder, self._split, self._cache_dir)
    return digest + self._field

  def __len__(self) -> int:
    """Return the number of records."""
    return len(self._records)

  def __getitem__(self, index: int) -> str:
    """Return the text of one record."""
    text = self._records[index][self._field]
    if not isinstance(text, str | bytes):
      raise UserError(
        f"feature {self._field!r} of the TFDS dataset is not text; set "
        "data.field to a text feature."
      )
    return text if isinstance(text, str) else decode(text, self._split)

  def label(self, index: int, by: str) -> str:
    """Return another feature of the record; see Source."""
    record = self._records[index]
    if by not in record:
      raise UserError(
        f"the TFDS dataset has no feature {by!r}; set "
        "objective.control_code_from to "
        f"one of {', '.join(record)}."
      )
    value = record[by]
    return value.decode() if isinstance(value, bytes) else str(value)


def open_tfds(
  name: str, data_dir: str, field: str, cache_dir: Path
) -> dict[str, Source]:
  """Open the texts of a prepared dataset.

  Args:
    name: name of the dataset, with configuration and version if there are
      several.
    data_dir: the directory of datasets; empty for the default of TFDS.
    field: the feature that contains the text.
    cache_dir: directory of content digests.

  Returns:
    The documents of the existing splits, by the name of the split in lmjax.

  Raises:
    UserError: if there is no such dataset, or none that can be read.
  """
  builder = open_builder(name, data_dir)
  features = builder.info.features
  if field not in features:
    raise UserError(
      f"TFDS dataset {name!r} has no feature {field!r}; set data.field to "
      f"one of {', '.join(features)}."
    )
  return {
    split: TFDSDocuments(builder, theirs, field, cache_dir)
    for split, theirs in available_splits(builder).items()
  }


def open_builder(name: str, data_dir: str) -> Any:
  """Open a prepared dataset.

  Raises:
    UserError: if there is no such dataset, or none that can be read.
  """
  import tensorflow_datasets as tfds

  if not name:
    raise UserError("data.name is empty; give the name of a TFDS dataset.")
  folder = os.path.expanduser(data_dir) if data_dir else None
  try:
    builder = tfds.builder(name, data_dir=folder, try_gcs=False)
    splits = builder.info.splits
  except Exception as error:
    raise UserError(
      f"there is no TFDS dataset {name!r} under data.data_dir="
      f"{data_dir or '(default)'}; make one with scripts/prepare_data.py."
    ) from error
  if not splits:
    raise UserError(
      f"TFDS dataset {name!r} is not prepared under {builder.data_dir}; "
      "prepare it there with file_format=array_record."
    )
  if builder.info.file_format.value != "array_record":
    raise UserError(
      f"TFDS dataset {name!r} is stored as {builder.info.file_format.value}; "
      "only array_record can be read without TensorFlow: prepare it again "
      "with file_format=array_record."
    )
  return builder


def available_splits(builder: Any) -> dict[str, str]:
  """Return the names of the existing splits, by the name in lmjax.

  >>> available_splits(tfds.builder("imdb_reviews"))
  {"train": "train", "test": "test"}

  Raises:
    UserError: if there is no train split.
  """
  existing = builder.info.splits
  found = {
    split: next((theirs for theirs in names if theirs in existing), None)
    for split, names in SPLIT_NAMES.items()
  }
  if not found["train"]:
    raise UserError(f"TFDS dataset {builder.name!r} has no train split.")
  return {split: theirs for split, theirs in found.items() if theirs}


def digest_split(builder: Any, split: str, cache_dir: Path) -> str:
  """Return a digest of the files of a split."""
  paths = builder.info.splits[split].filepaths
  return digest_files([Path(path) for path in sorted(paths)], cache_dir)
