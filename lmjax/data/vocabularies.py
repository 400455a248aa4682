# SPDX-License-Identifier: Apache-2.0
"""What the fields of records are written in: a tokenizer or labels each."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lmjax.data import tokenizers
from lmjax.data.records.labels import Labels
from lmjax.data.sources.text_sources import digest
from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UserError

KIND = "fields"


class Vocabularies:
  """Tokenizers and labels by the role of the field that they are for.

  Attributes:
    tokenizers: for texts.
    labels: for names of classes.
  """

  def __init__(
    self,
    tokenizers: Mapping[str, Tokenizer],
    labels: Mapping[str, Labels] | None = None,
  ):
    self.tokenizers = dict(tokenizers)
    self.labels = dict(labels or {})

  @property
  def record(self) -> dict:
    """Return all that is needed to make the same ones."""
    return dict(
      kind=KIND,
      tokenizers={k: v.record for k, v in self.tokenizers.items()},
      labels={k: v.record for k, v in self.labels.items()},
    )

  @property
  def fingerprint(self) -> str:
    """Digest of all of them."""
    return digest(json.dumps(self.record).encode())

  def save(self, path: Path) -> None:
    """Write them to a file that `load` reads."""
    text = json.dumps(self.record, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")


def first_tokenizer(known: Tokenizer | Vocabularies) -> Tokenizer:
  """Return a tokenizer, or that of the first text."""
  if isinstance(known, Vocabularies):
    return next(iter(known.tokenizers.values()))
  return known


def by_role(
  known: Tokenizer | Vocabularies | None, inputs: Sequence[str]
) -> dict[str, Tokenizer]:
  """Offer what another run's texts are written in to the roles of this one.

  Args:
    known: what it is; None for nothing.
    inputs: roles that a model sees; they get the first tokenizer, unless there
      is one of the same role.
  """
  if known is None:
    return {}
  same = known.tokenizers if isinstance(known, Vocabularies) else {}
  return {**dict.fromkeys(inputs, first_tokenizer(known)), **same}


def load(path: Path) -> Tokenizer | Vocabularies:
  """Read what a run's texts are written in.

  Raises:
    UserError: if the file is not lmjax's.
  """
  try:
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["kind"] != KIND:
      return tokenizers.from_record(record)
    kept = record["tokenizers"].items()
    return Vocabularies(
      {role: tokenizers.from_record(each) for role, each in kept},
      {role: Labels(**each) for role, each in record["labels"].items()},
    )
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"{path} is not a tokenizer of lmjax; restore the file from the run "
      "that its checkpoints came from."
    ) from error
