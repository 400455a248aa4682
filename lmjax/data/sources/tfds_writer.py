# SPDX-License-Identifier: Apache-2.0
"""Write TFDS datasets of text, shard by shard, without TensorFlow.

Each shard is written atomically, so an interrupted conversion resumes at the
first missing shard.
"""

from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds
import tqdm
from array_record.python.array_record_module import ArrayRecordWriter

from lmjax.data.sources.text_sources import Source
from lmjax.errors import UserError

VERSION = "1.0.0"
FIELD = "text"


def write_dataset(
  name: str, data_dir: Path, splits: dict[str, Source], shard_size: int
) -> Path:
  """Write splits as an array_record dataset that `tfds.builder` opens.

  Args:
    name: name of the dataset, in snake case.
    data_dir: the directory of datasets.
    splits: the documents of each split; empty splits are skipped.
    shard_size: number of documents in a shard.

  Returns:
    The directory of the dataset.

  Raises:
    UserError: if the directory contains shards of another text.
  """
  folder = data_dir / name / VERSION
  folder.mkdir(parents=True, exist_ok=True)
  _claim(folder, splits, shard_size)
  features = tfds.features.FeaturesDict({FIELD: tfds.features.Text()})
  infos = []
  for split, source in splits.items():
    if not len(source):
      continue
    starts = range(0, len(source), shard_size)
    template = tfds.core.ShardedFileTemplate(
      data_dir=folder,
      dataset_name=name,
      split=split,
      filetype_suffix="array_record",
    )
    paths = template.sharded_filepaths(len(starts))
    lengths, num_bytes = [], 0
    bar = tqdm.tqdm(total=len(source), desc=split, unit="doc", disable=None)
    for start, path in zip(starts, map(Path, paths), strict=True):
      indices = range(start, min(start + shard_size, len(source)))
      if not path.exists():
        _write_shard(path, source, indices, features)
      bar.update(len(indices))
      lengths.append(len(indices))
      num_bytes += path.stat().st_size
    bar.close()
    infos.append(
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=lengths,
        num_bytes=num_bytes,
        filename_template=template,
      )
    )
  tfds.folder_dataset.write_metadata(
    data_dir=folder, features=features, split_infos=infos, check_data=False
  )
  return folder


def _claim(folder: Path, splits: dict[str, Source], shard_size: int) -> None:
  """Check that existing shards are of this text, or record the text.

  Shards have no content digest, so a file with the fingerprints of the sources
  is written before the first one.
  """
  claim = folder / "source.txt"
  fingerprints = [f"{k} {v.fingerprint}" for k, v in splits.items()]
  wanted = "\n".join([f"shard_size {shard_size}", *fingerprints]) + "\n"
  if not claim.exists():
    if any(folder.iterdir()):
      raise UserError(f"{folder} contains other files; choose another name.")
    claim.write_text(wanted)
  elif claim.read_text() != wanted:
    raise UserError(
      f"{folder} contains another text or was started with other --shard_size; "
      "remove it or choose another name."
    )


def _write_shard(
  path: Path,
  source: Source,
  indices: Sequence[int],
  features: tfds.features.FeaturesDict,
) -> None:
  # The same name in all attempts: a later one overwrites what is left of an
  # interrupted one.
  partial = path.with_name(f"{path.name}.partial")
  # One record per group, as in TFDS: records are read at random.
  writer = ArrayRecordWriter(str(partial), "group_size:1")
  for index in indices:
    example = features.encode_example({FIELD: source[index]})
    writer.write(features.serialize_example(example))
  writer.close()
  partial.replace(path)
