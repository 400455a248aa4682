# SPDX-License-Identifier: Apache-2.0
"""The records of TensorFlow Datasets, read without TensorFlow."""

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmjax.data.records.tables.table import Record
from lmjax.data.sources.text_sources import decode
from lmjax.data.sources.tfds import digest_split


class TFDSTable:
  """One split of a dataset; features are columns.

  Labels become their names, numbers their digits, sequences lists of these;
  names within a feature follow its own name and a stroke, as tokens/word.

  Args:
    builder: of the dataset.
    split: what the dataset calls the split.
    cache_dir: where content digests are remembered.
  """

  def __init__(self, builder: Any, split: str, cache_dir: Path):
    self._builder, self._split = builder, split
    self._cache_dir = cache_dir

  @functools.cached_property
  def fingerprint(self) -> str:
    """Digest of the split's files."""
    return digest_split(self._builder, self._split, self._cache_dir)

  def __iter__(self) -> Iterator[Record]:
    """Read from the first to the last."""
    info, records = (
      self._builder.info,
      self._builder.as_data_source(self._split),
    )
    for index in range(len(records)):
      where = f"{info.full_name} {self._split}:{index}"
      yield Record(where, _columns(info.features, records[index], where))


def _columns(
  features: Any, values: Mapping[str, Any], where: str
) -> dict[str, Any]:
  """Flatten features to texts and lists of texts by name."""
  columns = {}
  for name, value in values.items():
    feature = getattr(features[name], "feature", features[name])
    if isinstance(value, Mapping):
      inner = _columns(feature, value, where)
      columns |= {f"{name}/{key}": each for key, each in inner.items()}
    else:
      columns[name] = _texts(feature, value, where)
  return columns


def _texts(feature: Any, value: Any, where: str) -> str | list:
  if isinstance(value, list) or np.ndim(value):
    return [_texts(feature, each, where) for each in value]
  if isinstance(value, bytes):
    return decode(value, where)
  if hasattr(feature, "int2str"):
    return feature.int2str(value) if value >= 0 else ""  # -1: not known
  return json.dumps(np.asarray(value).item())
