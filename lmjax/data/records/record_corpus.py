# SPDX-License-Identifier: Apache-2.0
"""Records with fields, each an example."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
from ml_collections import ConfigDict

from lmjax.data.atomic_dir import write_atomically
from lmjax.data.records.buckets import Buckets
from lmjax.data.records.encoded import Encoded
from lmjax.data.records.schemas.schema import (
  BadRow,
  Example,
  Row,
  Schema,
  UnseenLabel,
  fingerprint,
)
from lmjax.data.records.tables import TABLES
from lmjax.data.records.tables.portion import Portion
from lmjax.data.records.tables.table import Problem, Record, Table
from lmjax.data.sources.text_sources import digest
from lmjax.data.tokenizers import TOKENIZERS, ByteTokenizer, Tokenizer
from lmjax.data.vocabularies import Vocabularies, inherited_tokenizers
from lmjax.errors import UserError

FORMAT = 1  # raise it when encoded splits on disk are to be made anew
NAMED = 3  # records that are named among those that were skipped

Report = Callable[[Problem], None]  # called with records that are skipped


class Split(NamedTuple):
  """A split's examples, and what became of its records.

  Attributes:
    examples: the examples.
    num_skipped: how many records were malformed and left out.
    skipped: where the first of them are, and why.
    num_truncated: number of records that were longer than data.seq_len.
  """

  examples: Encoded
  num_skipped: int
  skipped: list[str]
  num_truncated: int


class RecordCorpus:
  """The records that a config names; see Corpus.

  Splits without records of their own are taken from train: valid_fraction and
  test_fraction of it. Of what is left, train_fraction is learned from; the
  vocabularies are of all of it, so that no label is unknown where few are used.

  Args:
    config: a finalized config.
    build_schema: (config, train_tokenizer) → what turns records into examples.
    known: the vocabularies of a run that is resumed; None to collect them.
    given: the tokenizers of the source run of a warm start; None to collect
      all.
    cache_dir: folder of encoded splits and digests of files.
    teacher: returns the scores of another run for the training rows, the
      field "teacher", [N, ...]; None for none.
  """

  has_resets = False

  def __init__(
    self,
    config: ConfigDict,
    build_schema: Callable[..., Schema],
    known: Vocabularies | None,
    given: Vocabularies | Tokenizer | None,
    cache_dir: Path,
    teacher: Callable[[], np.ndarray] | None = None,
  ):
    self._config, self._known, self._given = config, known, given
    self._build_schema = build_schema
    self._cache_dir, self._teacher = cache_dir, teacher
    self._split = functools.lru_cache(maxsize=None)(self._read_split)

  @functools.cached_property
  def schema(self) -> Schema:
    """Make what turns records into examples."""
    data = self._config.data

    def train_tokenizer(texts: Iterator[str], kind: str = "") -> Tokenizer:
      return TOKENIZERS[kind or data.tokenizer].train(
        texts, data.vocab_size, data.min_freq, data.lower_case
      )

    return self._build_schema(self._config, train_tokenizer)

  @functools.cached_property
  def _columns(self) -> dict[str, str]:
    """Return the column of each role."""
    columns = self._config.data.columns
    return {role: columns[role] for role in self.schema.roles}

  @functools.cached_property
  def tables(self) -> dict[str, Table]:
    """Open the records of each split."""
    data = self._config.data
    tables = dict(TABLES[data.source](data, self._cache_dir))
    fractions = dict(valid=data.valid_fraction, test=data.test_fraction)
    columns = tuple(self._columns[role] for role in self.schema.inputs)
    train, low = tables["train"], 0.0
    for split, fraction in fractions.items():
      if split not in tables and fraction:
        tables[split] = Portion(train, columns, low, low + fraction)
        low += fraction
    if low:
      tables["train"] = Portion(train, columns, low, 1.0)
    return tables

  @functools.cached_property
  def learned(self) -> Table:
    """Return the records of train that are learned from."""
    fraction = self._config.data.train_fraction
    if fraction == 1.0:
      return self.tables["train"]
    columns = tuple(self._columns[role] for role in self.schema.inputs)
    salt = f"train_fraction {self._config.seed}"
    return Portion(self.tables["train"], columns, 0.0, fraction, salt)

  def _table(self, split: str) -> Table:
    """Return the records of a split.

    Raises:
      UserError: if there are none.
    """
    if split not in self.tables:
      raise UserError(
        f"there are no records in split {split}; set "
        f"data.{split}_fraction or data.{split}_files."
      )
    return self.learned if split == "train" else self.tables[split]

  def refuse(self, problem: Problem) -> None:
    """Refuse a record, unless data.malformed says that it is to be skipped."""
    if self._config.data.malformed == "error":
      raise UserError(
        f"{problem.where}: {problem.reason}; correct the record or set "
        "data.malformed=skip."
      )

  def rows(
    self, split: str, report: Report | None = None
  ) -> Iterator[tuple[str, Row]]:
    """Read the rows of a split by role, each with where it is.

    Args:
      split: the split.
      report: called with malformed records, which are skipped; None for
        `refuse`.

    Raises:
      UserError: if there is no such split, or by `report`.
    """
    return self.select(self._table(split), self.schema.roles, report)

  def select(
    self,
    records: Iterable[Record | Problem],
    roles: Sequence[str],
    report: Report | None = None,
  ) -> Iterator[tuple[str, Row]]:
    """Read rows of records, as data.columns says; see `rows`."""
    report = report or self.refuse
    columns = {role: self._columns[role] for role in roles}
    for record in records:
      if isinstance(record, Problem):
        report(record)
        continue
      where, fields = record
      try:
        row = {role: fields[column] for role, column in columns.items()}
      except KeyError:
        report(Problem(where, _missing(columns, fields)))
        continue
      yield where, row

  @functools.cached_property
  def tokenizer(self) -> Vocabularies:
    """Return the run's vocabularies, or collect them from the split train."""
    if self._known:
      return self._known
    given = inherited_tokenizers(self._given, self.schema.inputs)

    def rows() -> Iterator[tuple[str, Row]]:
      return self.select(self.tables["train"], self.schema.roles)

    try:
      return self.schema.learn((row for _, row in rows()), given)
    except BadRow:  # some row; look at them one by one
      sound = filter(self._can_be_learned, rows())
      return self.schema.learn((row for _, row in sound), given)

  @property
  def text_tokenizer(self) -> Tokenizer:
    """Return the first tokenizer that the schema names."""
    return next(iter(self.tokenizer.tokenizers.values()))

  def _can_be_learned(self, place: tuple[str, Row]) -> bool:
    where, row = place
    known = dict.fromkeys(self.schema.roles, ByteTokenizer())
    try:
      self.schema.learn([row], known)
    except BadRow as error:
      self.refuse(Problem(where, str(error)))
      return False
    return True

  def encode(
    self, where: str, row: Row, report: Report | None = None
  ) -> Example | None:
    """Make an example of a row; None if it is malformed and left out.

    Args:
      where: where the row is.
      row: its texts by role.
      report: see `rows`.

    Raises:
      UserError: naming the row, if it has a label that the training text does
        not have, or by `report`.
    """
    try:
      return self.schema.encode(row, self.tokenizer)
    except UnseenLabel as error:
      raise UserError(
        f"{where}: the label {str(error)!r} does not occur in the split train; "
        "correct it, or leave the record out."
      ) from None
    except BadRow as error:
      (report or self.refuse)(Problem(where, str(error)))
      return None

  def truncate(
    self, example: Example, learned: bool = False
  ) -> tuple[Example, bool]:
    """Truncate the fields of an example that are longer than data.seq_len.

    Args:
      example: of any length.
      learned: whether it is to be learned from; of some tasks all others stay
        whole.
    """
    if self.schema.whole and not learned:
      return example, False
    shortened = self.schema.truncate(example, self._config.data.seq_len)
    return shortened, any(
      np.shape(shortened[field]) != np.shape(values)
      for field, values in example.items()
    )

  def kept_rows(self, split: str) -> Iterator[tuple[str, Row]]:
    """Read the rows of a split that are not skipped."""
    for where, row in self.rows(split):
      if self.encode(where, row) is not None:
        yield where, row

  def _read_split(self, split: str) -> Split:
    """Open the examples of a split, encoding them first if they never were."""
    table, schema, data = self._table(split), self.schema, self._config.data
    decisive = dict(
      format=FORMAT,
      split=split,
      table=table.fingerprint,
      tokenizer=self.tokenizer.fingerprint,
      schema=fingerprint(schema),
      columns=self._columns,
      seq_len=data.seq_len,
      malformed=data.malformed,
    )
    key = digest(json.dumps(decisive).encode())
    folder = self._cache_dir / "records" / key
    if not folder.exists():
      write_atomically(
        folder, lambda partial: self._write_split(split, partial)
      )
    description = json.loads((folder / "split.json").read_text())
    encoded = Encoded.open(folder, schema.groups, schema.pads)
    return Split(encoded, **description)

  def _write_split(self, split: str, folder: Path) -> None:
    skipped, num_truncated = [], 0

    def report(problem: Problem) -> None:
      self.refuse(problem)
      skipped.append(f"{problem.where}: {problem.reason}")

    def examples() -> Iterator[Example]:
      nonlocal num_truncated
      rows = tqdm.tqdm(
        self.rows(split, report),
        desc=f"encode {split}",
        unit="row",
        leave=False,
        disable=None,
      )
      for where, row in rows:
        example = self.encode(where, row, report)
        if example is not None:
          example, is_truncated = self.truncate(
            example, learned=split == "train"
          )
          num_truncated += is_truncated
          yield example

    schema = self.schema
    encoded = Encoded.of(examples(), schema.groups, schema.pads)
    if not len(encoded):
      data = self._config.data
      advice = "give more records, or other fractions to valid and test"
      if skipped:
        advice = f"{len(skipped):,} were skipped, as {skipped[0]}"
      raise UserError(
        f"data.source={data.source} {data.path or data.name} has no record in "
        f"split {split}; {advice}."
      )
    folder.mkdir()
    encoded.save(folder)
    description = dict(
      num_skipped=len(skipped),
      skipped=skipped[:NAMED],
      num_truncated=num_truncated,
    )
    (folder / "split.json").write_text(json.dumps(description))

  @functools.cached_property
  def _taught(self) -> Encoded:
    """Return the examples to train on, with what a teacher says of them."""
    examples = self._split("train").examples
    if self._teacher is None:
      return examples
    values = {**examples.values, "teacher": self._teacher()}
    return dataclasses.replace(examples, values=values)

  def _batches(self, examples: Encoded, shuffled: bool) -> Buckets:
    data = self._config.data
    return Buckets(
      examples,
      data.batch_size,
      data.num_buckets,
      self._config.seed,
      shuffled,
      jax.process_index(),
      jax.process_count(),
    )

  def train_batches(self) -> Buckets:
    """Return the batches to train on, by number."""
    return self._batches(self._taught, shuffled=True)

  def eval_batches(self, split: str) -> Buckets:
    """Return the batches that cover a split once."""
    return self._batches(self._split(split).examples, shuffled=False)

  @property
  def fingerprints(self) -> dict[str, str]:
    """Name the records of each split by their digest."""
    return {k: v.fingerprint for k, v in sorted(self.tables.items())}

  @property
  def sizes(self) -> dict[str, int]:
    """Return what a model must know of the vocabularies."""
    return self.schema.sizes(self.tokenizer)

  @property
  def task_inputs(self) -> dict[str, Any]:
    """Return what a task must know of the vocabularies."""
    return self.schema.task_inputs(self.tokenizer)

  @property
  def example_batch(self) -> dict[str, np.ndarray]:
    """Return a batch of nothing."""
    schema = self.schema
    blank = Encoded.of(
      [schema.blank(self.tokenizer)], schema.groups, schema.pads
    )
    rows_B = np.zeros(self._config.data.batch_size, np.int64)
    return blank.batch(rows_B, [1] * len(schema.groups))

  @property
  def tokens_per_batch(self) -> float:
    """Return how many tokens a batch has on average, padding counted."""
    return self.train_batches().tokens_per_batch

  def counts(self) -> np.ndarray:
    """Count how often each token occurs in the inputs of train, int64 [V]."""
    values = self._split("train").examples.values["inputs"]
    return np.bincount(values, minlength=self.sizes["vocab_size"])

  def describe(self) -> dict:
    """Describe the records of the split train."""
    return dict(train_rows=len(self._split("train").examples))

  def summary(self, split: str) -> str:
    """Describe what was read of train and another split."""
    lines = []
    for name in dict.fromkeys(("train", split)):
      examples, num_skipped, skipped, num_truncated = self._split(name)
      shapes = self._batches(examples, shuffled=False).shapes
      listed = ", ".join("+".join(map(str, shape)) for shape in shapes)
      lines.append(
        f"{name}: {len(examples):,} rows, {num_skipped:,} skipped, "
        f"{num_truncated:,} truncated to data.seq_len; {len(shapes)} shapes of "
        f"{listed} tokens"
      )
      lines += [f"  skipped {place}" for place in skipped]
      if num_skipped > len(skipped):
        lines.append(f"  and {num_skipped - len(skipped):,} more")
    sizes = ", ".join(f"{k} {v:,}" for k, v in self.sizes.items())
    return "\n".join([*lines, f"vocabularies: {sizes}"])

  def estimate(self, model: Any) -> dict[str, Any]:
    """Count nothing."""
    del model
    return {}


def _missing(columns: Mapping[str, str], fields: Mapping[str, Any]) -> str:
  """Say which column is missing, and which there are."""
  role = next(r for r, column in columns.items() if column not in fields)
  hint = "name one of these"
  if all(name.isdecimal() for name in fields):
    hint += ", or set data.header=True if the first line names them"
  return (
    f"data.columns.{role}={columns[role]} is not one of its columns, "
    f"{', '.join(fields)} ({hint})"
  )
