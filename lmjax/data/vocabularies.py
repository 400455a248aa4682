# SPDX-License-Identifier: Apache-2.0
"""The vocabularies of records: a tokenizer or labels for each field."""

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
  """Tokenizers and labels, by the role of their field.

  Attributes:
    tokenizers: the tokenizers of text fields.
    labels: the labels of fields that name classes.
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
    """JSON values from which `load` builds equal vocabularies."""
    return dict(
      kind=KIND,
      tokenizers={k: v.record for k, v in self.tokenizers.items()},
      labels={k: v.record for k, v in self.labels.items()},
    )

  @property
  def fingerprint(self) -> str:
    """Digest of the vocabularies."""
    return digest(json.dumps(self.record).encode())

  def save(self, path: Path) -> None:
    """Write the vocabularies to a file that `load` reads."""
    text = json.dumps(self.record, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")


def first_tokenizer(vocabularies: Tokenizer | Vocabularies) -> Tokenizer:
  """Return a tokenizer, or that of the first text field."""
  if isinstance(vocabularies, Vocabularies):
    return next(iter(vocabularies.tokenizers.values()))
  return vocabularies


def inherited_tokenizers(
  inherited: Tokenizer | Vocabularies | None, inputs: Sequence[str]
) -> dict[str, Tokenizer]:
  """Return the tokenizers that a run inherits from another, by role.

  >>> inherited_tokenizers(Vocabularies({"target": words, "source": bpe}),
  ...                      inputs=["text"])
  {"text": words, "target": words, "source": bpe}

  Args:
    inherited: the tokenizer or vocabularies of the other run; None for none.
    inputs: roles of this run that are inputs of the model. They get the first
      tokenizer, unless there is one of the same role.
  """
  if inherited is None:
    return {}
  same = inherited.tokenizers if isinstance(inherited, Vocabularies) else {}
  # The first tokenizer is that of the embedding table, which inputs index.
  return {**dict.fromkeys(inputs, first_tokenizer(inherited)), **same}


def load(path: Path) -> Tokenizer | Vocabularies:
  """Load the tokenizer or vocabularies of a run from a file.

  Raises:
    UserError: if `save` did not write the file.
  """
  try:
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["kind"] != KIND:
      return tokenizers.from_record(record)
    return Vocabularies(
      {k: tokenizers.from_record(v) for k, v in record["tokenizers"].items()},
      {k: Labels(**v) for k, v in record["labels"].items()},
    )
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"{path} is not a tokenizer of lmjax; restore the file from the run "
      "that its checkpoints came from."
    ) from error
