# SPDX-License-Identifier: Apache-2.0
"""A text and its label, or its labels."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.records.labels import Labels
from lmjax.data.records.schemas.schema import (
  BadRow,
  Example,
  Row,
  UnseenLabel,
  text_of,
  truncate_at_end,
)
from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies

TrainTokenizer = Callable[[Iterable[str]], Tokenizer]


@dataclasses.dataclass(frozen=True)
class Classification:
  """Text and label to the fields of a batch.

      inputs   int32    tokens [B, T]
      mask     bool     true on tokens [B, T]
      targets  int32    the label's number [B]; with many labels, float32
                        [B, C], 1 at those that the text has
      weights  float32  [B]

  Attributes:
    train_tokenizer: makes a tokenizer of texts.
    many: whether a text may have several labels.
    separator: separator of labels.
  """

  train_tokenizer: TrainTokenizer
  many: bool
  separator: str

  roles = ("text", "label")
  inputs = ("text",)
  groups = {"mask": ("inputs",)}
  pads = {}
  whole = False

  def learn(
    self, rows: Iterable[Row], known: Mapping[str, Tokenizer]
  ) -> Vocabularies:
    """Collect tokens and labels."""
    texts, names = [], []
    for row in rows:
      texts.append(text_of(row, "text"))
      names += self._labels(row)
    tokenizer = known.get("text") or self.train_tokenizer(texts)
    return Vocabularies({"text": tokenizer}, {"label": Labels.train(names)})

  def encode(self, row: Row, vocabularies: Vocabularies) -> Example:
    """Turn a row into an example."""
    tokens = vocabularies.tokenizers["text"].encode(text_of(row, "text"))
    if not len(tokens):
      raise BadRow("its text has no token")
    example = dict(inputs=tokens, weights=np.float32(1.0))
    if "label" in row:
      example["targets"] = self._targets(row, vocabularies.labels["label"])
    return example

  def truncate(self, example: Example, seq_len: int) -> Example:
    """Truncate texts at the end."""
    return truncate_at_end(example, self.groups, seq_len)

  def blank(self, vocabularies: Vocabularies) -> Example:
    """Return an example of the right shapes, of nothing."""
    tokenizer = vocabularies.tokenizers["text"]
    labels = vocabularies.labels["label"]
    targets = np.zeros(len(labels), np.float32) if self.many else np.int32(0)
    return dict(
      inputs=np.array([tokenizer.eos_id], np.int32),
      targets=targets,
      weights=np.float32(0.0),
    )

  def sizes(self, vocabularies: Vocabularies) -> dict[str, int]:
    """Return the numbers of tokens and labels."""
    return dict(
      vocab_size=vocabularies.tokenizers["text"].vocab_size,
      num_labels=len(vocabularies.labels["label"]),
    )

  def task_inputs(self, vocabularies: Vocabularies) -> dict[str, Any]:
    """Return what there is to know of the labels."""
    labels = vocabularies.labels["label"]
    return dict(labels=labels.names, label_counts=labels.counts, many=self.many)

  def _labels(self, row: Row) -> list[str]:
    label = row["label"]
    if not self.many:
      return [text_of(row, "label")]
    names = label.split(self.separator) if isinstance(label, str) else label
    return [name.strip() for name in names if name.strip()]

  def _targets(self, row: Row, labels: Labels) -> np.ndarray:
    names = self._labels(row)
    for name in names:
      if name not in labels:
        raise UnseenLabel(name)
    numbers = [labels[name] for name in names]
    if not self.many:
      return np.int32(numbers[0])
    targets_Y = np.zeros(len(labels), np.float32)
    targets_Y[numbers] = 1.0
    return targets_Y


def build(
  config: ConfigDict, train_tokenizer: TrainTokenizer
) -> Classification:
  """Make the schema that a config describes."""
  options = config.classification
  return Classification(
    train_tokenizer, options.labels == "many", options.separator
  )
