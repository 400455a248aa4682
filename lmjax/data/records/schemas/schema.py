# SPDX-License-Identifier: Apache-2.0
"""What a task makes of a record; to add one, see schemas/__init__.py."""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from lmjax.data.sources.text_sources import digest
from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies

Row = Mapping[str, Any]  # texts by role
Example = dict[str, np.ndarray]  # arrays by field of a batch


class BadRow(Exception):
  """A row of which no example can be made; its text says why."""


class UnseenLabel(BadRow):
  """A label that the training text does not have."""


class Schema(Protocol):
  """How rows become the fields of batches.

  A schema is a frozen dataclass; its fields, and the code of its file, are what
  decides besides vocabularies.

  Attributes:
    roles: what a row must have; `config.data.columns` says where it is.
    inputs: the roles among them that a model sees; those that hold what it is
      to say are not needed where it is asked.
    groups: fields whose first axis is time, by the name of the mask that says
      how long they are: in a batch each group is padded to one length, and the
      mask is true where there was something. Fields that are in no group have
      one shape in all examples.
    pads: padding values of fields of groups other than 0.
    whole: whether only training rows are truncated to data.seq_len, because
      predictions must cover all of the others.
  """

  roles: tuple[str, ...]
  inputs: tuple[str, ...]
  groups: Mapping[str, tuple[str, ...]]
  pads: Mapping[str, int | float]
  whole: bool

  def learn(
    self, rows: Iterable[Row], known: Mapping[str, Tokenizer]
  ) -> Vocabularies:
    """Collect vocabularies from the rows of the split train.

    Args:
      rows: all of them.
      known: tokenizers that are there already, by role.
    """

  def encode(self, row: Row, vocabularies: Vocabularies) -> Example:
    """Turn a row into an example, with a weight.

    The field "weights" is what each target counts; it is 0 in the rows that
    fill up a batch.

    Raises:
      BadRow: if that cannot be done.
    """

  def truncate(self, example: Example, seq_len: int) -> Example:
    """Shorten the fields of groups to at most `seq_len` places."""

  def blank(self, vocabularies: Vocabularies) -> Example:
    """Return an example of nothing, with all fields and a weight of 0."""

  def sizes(self, vocabularies: Vocabularies) -> dict[str, int]:
    """Return what a model must know of vocabularies, vocab_size at least."""

  def task_inputs(self, vocabularies: Vocabularies) -> dict[str, Any]:
    """Return what the fields of a task are filled with, by their names."""


def text_of(row: Row, role: str) -> str:
  """Return a text, if it is one.

  Raises:
    BadRow: if it is empty or of another type.
  """
  text = row[role]
  if not isinstance(text, str) or not text.strip():
    raise BadRow(f"its {role} is empty")
  return text


def truncate_at_end(
  example: Example, groups: Mapping[str, Sequence[str]], seq_len: int
) -> Example:
  """Leave the first `seq_len` places of all fields that have a time."""
  fields = {field for group in groups.values() for field in group}
  return {
    field: values[:seq_len] if field in fields else values
    for field, values in example.items()
  }


def fingerprint(schema: Schema) -> str:
  """Digest all that decides what a schema makes of rows and vocabularies."""
  values = {
    field.name: getattr(schema, field.name)
    for field in dataclasses.fields(schema)
  }
  settings = {k: v for k, v in values.items() if not callable(v)}
  code = inspect.getsource(inspect.getmodule(type(schema)))
  return digest(f"{code}{type(schema).__name__}{settings}".encode())
