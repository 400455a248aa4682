# SPDX-License-Identifier: Apache-2.0
"""Convert text or JSONL into a TFDS dataset (array_record, sharded).

    python scripts/prepare_data.py --name=books --input='books/*.txt' \
        --data_dir=data
    python train.py --config=configs/char_lstm.py --workdir=runs/books \
        --config.data.source=tfds --config.data.name=books \
        --config.data.data_dir=data

Run it again after an interruption: finished shards are reused.
"""

import re
from pathlib import Path

from absl import flags

from lmjax.data.sources.splits import split_by_ratio
from lmjax.data.sources.text_sources import (
  JSONL_SUFFIXES,
  TEXT_SUFFIXES,
  JSONLines,
  TextFiles,
  find_files,
)
from lmjax.data.sources.tfds_writer import write_dataset
from lmjax.errors import UsageError

_NAME = flags.DEFINE_string("name", None, "Name of the dataset.")
_INPUT = flags.DEFINE_string("input", None, "A file, a folder or a glob.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of data sets.")
_FORMAT = flags.DEFINE_enum(
  "format", "text", ["text", "jsonl"], "A document a file, or a line of JSON."
)
_FIELD = flags.DEFINE_string("field", "text", "jsonl: field of the text.")
_VALID = flags.DEFINE_float("valid_fraction", 0.05, "Fraction of validation.")
_TEST = flags.DEFINE_float("test_fraction", 0.05, "Fraction of test.")
_SHARD_SIZE = flags.DEFINE_integer("shard_size", 1000, "Documents per shard.")
flags.mark_flags_as_required(["name", "input", "data_dir"])


def main() -> None:
  """Write the dataset and print its folder."""
  if not re.fullmatch(r"[a-z][a-z0-9_]*", _NAME.value):
    raise UsageError(
      f"--name={_NAME.value} must be lower-case letters, digits and _."
    )
  if _SHARD_SIZE.value < 1:
    raise UsageError(f"--shard_size={_SHARD_SIZE.value} must be positive.")
  if not 0 <= _VALID.value + _TEST.value < 1:
    raise UsageError("--valid_fraction and --test_fraction must leave a rest.")
  data_dir = Path(_DATA_DIR.value).expanduser().resolve()
  suffixes = TEXT_SUFFIXES if _FORMAT.value == "text" else JSONL_SUFFIXES
  paths = find_files(_INPUT.value, suffixes)
  cache_dir = data_dir / ".cache"
  source = (
    TextFiles(paths, cache_dir)
    if _FORMAT.value == "text"
    else JSONLines(paths, _FIELD.value, cache_dir)
  )
  splits = split_by_ratio(source, _VALID.value, _TEST.value)
  names = dict(train="train", valid="validation", test="test")
  print(
    write_dataset(
      _NAME.value,
      data_dir,
      {names[split]: part for split, part in splits.items()},
      _SHARD_SIZE.value,
    )
  )
