# SPDX-License-Identifier: Apache-2.0
"""Records with fields, each an example."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lmjax.data.buckets import Buckets
from lmjax.data.encoded import Encoded
from lmjax.data.schemas import SCHEMAS
from lmjax.data.schemas.schema import (
  BadRow,
  Example,
  Row,
  Schema,
  UnseenLabel,
)
from lmjax.data.tables import TABLES
from lmjax.data.tables.portion import Portion
from lmjax.data.tables.table import Problem, Table
from lmjax.data.tokenizers import TOKENIZERS, Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UserError

MALFORMED = ("refuse", "skip")


class Split(NamedTuple):
  """A split's examples, and what became of its records.

  Attributes:
    examples: the examples.
    skipped: how many records were malformed and left out.
    cut: how many texts were longer than data.window and were cut.
  """

  examples: Encoded
  skipped: int
  cut: int


class RecordCorpus:
  """The records that a config names; see Corpus.

  Splits without records of their own are taken from train: valid_fraction and
  test_fraction of it. Of what is left, train_fraction is learned from.

  Args:
    config: a finalized config.
    known: the vocabularies of a run that has begun; None to collect them.
    given: tokenizers by role that are there, where they are collected.
    cache_dir: where digests of files are remembered.
  """

  has_resets = False

  def __init__(
    self,
    config: ConfigDict,
    known: Vocabularies | None,
    given: Mapping[str, Tokenizer],
    cache_dir: Path,
  ):
    self._config, self._known, self._given = config, known, given
    self._cache_dir = cache_dir
    self._columns = dict(config.data.columns)
    self._split = functools.lru_cache(maxsize=None)(self._read_split)

  @functools.cached_property
  def schema(self) -> Schema:
    """Make what turns records into examples."""
    data = self._config.data

    def train_tokenizer(texts: Iterator[str], kind: str = "") -> Tokenizer:
      return TOKENIZERS[kind or data.tokenizer].train(
        texts, data.vocab_size, data.min_freq, data.lower_case
      )

    return SCHEMAS[self._config.task](self._config, train_tokenizer)

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

  def rows(self, split: str) -> Iterator[tuple[str, Row]]:
    """Read the rows of a split by role, each with where it is.

    Raises:
      UserError: if there is no such split, or a record is malformed and
        data.malformed=refuse.
    """
    if split not in self.tables:
      raise UserError(
        f"there are no records in split {split}; give it a share by "
        f"data.{split}_fraction or data.{split}_files."
      )
    table = self.learned if split == "train" else self.tables[split]
    for record in table:
      if isinstance(record, Problem):
        yield record.where, self._malformed(record.where, record.reason)
        continue
      missing = [c for c in self._columns.values() if c not in record.fields]
      if missing:
        reason = (
          f"there is no column {missing[0]!r} among "
          f"{', '.join(map(repr, record.fields))}; see data.columns"
        )
        yield record.where, self._malformed(record.where, reason)
        continue
      row = {role: record.fields[c] for role, c in self._columns.items()}
      yield record.where, row

  def _malformed(self, where: str, reason: str) -> None:
    """Refuse a record, or say that it is to be skipped."""
    if self._config.data.malformed == "refuse":
      raise UserError(
        f"{where}: {reason}; mend the record or set data.malformed=skip."
      )

  @functools.cached_property
  def tokenizer(self) -> Vocabularies:
    """Return the run's vocabularies, or collect them from the split train."""
    if self._known:
      return self._known
    rows = (row for _, row in self.rows("train") if row is not None)
    return self.schema.learn(rows, self._given)

  @property
  def text_tokenizer(self) -> Tokenizer:
    """Return the tokenizer of the first text that a model sees."""
    return self.tokenizer.tokenizers[self.schema.inputs[0]]

  def encode(self, where: str, row: Row) -> Example | None:
    """Make an example of a row; None if it is to be skipped.

    Raises:
      UserError: naming the row, if it is malformed or has a label that the
        training text does not have.
    """
    try:
      return self.schema.encode(row, self.tokenizer)
    except UnseenLabel as error:
      raise UserError(
        f"{where}: the label {str(error)!r} does not occur in the split train; "
        "mend it, or leave the record out."
      ) from None
    except BadRow as error:
      self._malformed(where, str(error))
      return None

  def cut(self, example: Example) -> tuple[Example, bool]:
    """Cut the fields of an example that are longer than data.window."""
    window, cut = self._config.data.window, False
    for fields in self.schema.groups.values():
      if len(example[fields[0]]) > window:
        cut = True
        example |= {k: example[k][:window] for k in fields if k in example}
    return example, cut

  def _read_split(self, split: str) -> Split:
    examples, skipped, num_cut = [], 0, 0
    for where, row in self.rows(split):
      example = None if row is None else self.encode(where, row)
      if example is None:
        skipped += 1
        continue
      example, cut = self.cut(example)
      examples.append(example)
      num_cut += cut
    if not examples:
      raise UserError(
        f"data.source={self._config.data.source} {self._config.data.path} has "
        f"no record in split {split}."
      )
    schema = self.schema
    encoded = Encoded.of(examples, schema.groups, schema.pads)
    return Split(encoded, skipped, num_cut)

  def _batches(self, split: str, shuffled: bool) -> Buckets:
    data = self._config.data
    return Buckets(
      self._split(split).examples,
      data.batch_size,
      data.num_buckets,
      self._config.seed,
      shuffled,
      jax.process_index(),
      jax.process_count(),
    )

  def train_batches(self) -> Buckets:
    """Return the batches to train on, by number."""
    return self._batches("train", shuffled=True)

  def eval_batches(self, split: str) -> Buckets:
    """Return the batches that cover a split once."""
    return self._batches(split, shuffled=False)

  @property
  def fingerprints(self) -> dict[str, str]:
    """Name the records of each split by their digest."""
    return {k: v.fingerprint for k, v in sorted(self.tables.items())}

  @property
  def sizes(self) -> dict[str, int]:
    """Return what a model must know of the vocabularies."""
    return self.schema.sizes(self.tokenizer)

  @property
  def offers(self) -> dict[str, Any]:
    """Return what a task must know of the vocabularies."""
    return self.schema.offers(self.tokenizer)

  @property
  def template(self) -> dict[str, np.ndarray]:
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
      examples, skipped, cut = self._split(name)
      shapes = self._batches(name, shuffled=False).shapes
      listed = ", ".join("+".join(map(str, shape)) for shape in shapes)
      lines.append(
        f"{name}: {len(examples):,} rows, {skipped:,} skipped, {cut:,} cut to "
        f"data.window; {len(shapes)} shapes of {listed} tokens"
      )
    sizes = ", ".join(f"{k} {v:,}" for k, v in self.sizes.items())
    return "\n".join([*lines, f"vocabularies: {sizes}"])

  def estimate(self, model: Any) -> dict[str, Any]:
    """Count nothing."""
    del model
    return {}
