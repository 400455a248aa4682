# SPDX-License-Identifier: Apache-2.0
"""Parts of a table, chosen by what its records say.

A record's place between 0 and 1 is a hash of its texts in some columns, so
records that agree there are never divided, a larger part holds the smaller, and
nothing must be counted first.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator

from lmjax.data.records.tables.table import Problem, Record, Table


@dataclasses.dataclass(frozen=True)
class Portion:
  """The records of a table whose place is in [low, high).

  Attributes:
    table: all records; problems among them are in every part.
    columns: the columns that decide.
    low: start of the part.
    high: end of the part.
    salt: another one makes another choice.
  """

  table: Table
  columns: tuple[str, ...]
  low: float
  high: float
  salt: str = ""

  @property
  def fingerprint(self) -> str:
    """Digest of the whole table, and which part it is."""
    part = [self.columns, self.low, self.high, self.salt]
    return f"{self.table.fingerprint} {json.dumps(part)}"

  def __iter__(self) -> Iterator[Record | Problem]:
    """Read the part."""
    for record in self.table:
      if isinstance(record, Problem) or self._holds(record):
        yield record

  def _holds(self, record: Record) -> bool:
    texts = [record.fields.get(column) for column in self.columns]
    text = json.dumps([self.salt, texts]).encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return self.low <= int.from_bytes(digest, "big") / 2**64 < self.high
