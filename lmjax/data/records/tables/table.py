# SPDX-License-Identifier: Apache-2.0
"""Where examples come from: records with named fields, in a fixed order."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol


class Record(NamedTuple):
  """What one example is made of.

  Attributes:
    where: the file and line that it comes from, for people.
    fields: its texts by column; a list of texts where a column has one a word.
  """

  where: str
  fields: Mapping[str, Any]


class Problem(NamedTuple):
  """A place in a table that holds no record.

  Attributes:
    where: the file and line.
    reason: what is wrong there, to follow a colon in a message.
  """

  where: str
  reason: str


class Table(Protocol):
  """Records, in order.

  Attributes:
    fingerprint: a digest that changes when the records change.
  """

  fingerprint: str

  def __iter__(self) -> Iterator[Record | Problem]:
    """Read from the first to the last."""
