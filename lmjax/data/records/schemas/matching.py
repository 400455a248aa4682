# SPDX-License-Identifier: Apache-2.0
"""Two texts, and how they go together."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

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

SEPARATOR = "<sep>"
TEXTS = ("first", "second")


class TrainTokenizer(Protocol):
  """Makes a tokenizer of texts, of the config's kind if none is named."""

  def __call__(self, texts: Iterable[str], kind: str = "") -> Tokenizer:
    """Make it."""


@dataclasses.dataclass(frozen=True)
class Matching:
  """Two texts, and mostly a label or a score, to the fields of a batch.

      inputs       int32    tokens of the first text [B, T]
      mask         bool     true on tokens [B, T]
      others       int32    tokens of the second text [B, S]
      others_mask  bool     true on tokens [B, S]
      targets      int32    the label's number [B]; float32 if it is a score;
                            absent where only what goes together is given
      weights      float32  [B]

  If both are encoded together, they are in one row, and instead of others is

      segments     int32    0 on the first text and the mark, 1 on the second

      a cat | one cat  →  inputs    a cat <sep> one cat
                          segments  0  0    0    1   1

  A row may lack one of the texts, and so its example, where the other alone is
  to become a vector.

  Attributes:
    train_tokenizer: makes a tokenizer of texts.
    loss: the loss; see lmjax.tasks.matching.
    joined: whether both texts are in one row.
    second_tokenizer: kind of the second text's tokenizer; empty to share the
      first one's.
    min_score: the lowest possible score.
    max_score: and the highest.
  """

  train_tokenizer: TrainTokenizer
  loss: str
  joined: bool
  second_tokenizer: str
  min_score: float
  max_score: float

  inputs = TEXTS
  pads = {}
  whole = False

  @property
  def roles(self) -> tuple[str, ...]:
    """What a row must have."""
    return (
      TEXTS
      if self.loss in ("contrastive", "triplet")
      else (
        *TEXTS,
        "label",
      )
    )

  @property
  def groups(self) -> Mapping[str, tuple[str, ...]]:
    """Fields by mask."""
    if self.joined:
      return {"mask": ("inputs", "segments")}
    return {"mask": ("inputs",), "others_mask": ("others",)}

  def learn(
    self, rows: Iterable[Row], known: Mapping[str, Tokenizer]
  ) -> Vocabularies:
    """Collect the tokens of both texts, and labels."""
    texts, names = {role: [] for role in TEXTS}, set()
    for row in rows:
      for role in TEXTS:
        texts[role].append(text_of(row, role))
      if self.loss == "classification":
        names.add(text_of(row, "label"))
    labels = {"label": Labels.train(names)} if names else {}
    kind = self.second_tokenizer
    shared = texts["first"] + ([] if kind else texts["second"])
    first = known.get("first") or self.train_tokenizer(shared)
    if self.joined and SEPARATOR not in first.special_tokens:
      first = first.with_special_tokens([*first.special_tokens, SEPARATOR])
    tokenizers = dict(first=first)
    if kind:
      second = known.get("second")
      if second is None or second.kind != kind:
        second = self.train_tokenizer(texts["second"], kind)
      tokenizers["second"] = second
    return Vocabularies(tokenizers, labels)

  def encode(self, row: Row, vocabularies: Vocabularies) -> Example:
    """Turn a row into an example."""
    tokens = {
      role: self._tokens(row, role, vocabularies)
      for role in TEXTS
      if role in row
    }
    if self.joined:
      example = self._join(tokens, vocabularies.tokenizers["first"])
    else:
      names = dict(first="inputs", second="others")
      example = {names[role]: values for role, values in tokens.items()}
    example["weights"] = np.float32(1.0)
    if "label" in row and "label" in self.roles:
      example["targets"] = self._target(row, vocabularies)
    return example

  def _tokens(
    self, row: Row, role: str, vocabularies: Vocabularies
  ) -> np.ndarray:
    tokenizers = vocabularies.tokenizers
    tokenizer = tokenizers.get(role, tokenizers["first"])
    tokens = tokenizer.encode(text_of(row, role))
    if not len(tokens):
      raise BadRow(f"its {role} has no token")
    return tokens

  def _join(
    self, tokens: Mapping[str, np.ndarray], tokenizer: Tokenizer
  ) -> Example:
    missing = [role for role in TEXTS if role not in tokens]
    if missing:
      raise BadRow(f"its {missing[0]} is missing, and both are read at once")
    first, second = tokens["first"], tokens["second"]
    mark = np.array([tokenizer.special_token_id(SEPARATOR)], np.int32)
    segments = np.repeat(np.int32([0, 1]), [len(first) + 1, len(second)])
    return dict(inputs=np.concatenate([first, mark, second]), segments=segments)

  def _target(self, row: Row, vocabularies: Vocabularies) -> np.generic:
    label = text_of(row, "label")
    if self.loss == "classification":
      labels = vocabularies.labels["label"]
      if label not in labels:
        raise UnseenLabel(label)
      return np.int32(labels[label])
    try:
      score = float(label)
    except ValueError:
      raise BadRow(f"its label {label!r} is no number") from None
    if not self.min_score <= score <= self.max_score:
      raise BadRow(
        f"its label {label} is not between matching.min_score="
        f"{self.min_score:g} and matching.max_score={self.max_score:g}"
      )
    return np.float32(score)

  def truncate(self, example: Example, seq_len: int) -> Example:
    """Truncate texts at the end; of two in one row, the longer one first."""
    if not self.joined or len(example["inputs"]) <= seq_len:
      return truncate_at_end(example, self.groups, seq_len)
    first = int(np.argmax(example["segments"])) - 1  # tokens before the mark
    second, room = len(example["segments"]) - first - 1, seq_len - 1
    kept = min(first, max(room - second, room - room // 2))
    places = np.r_[:kept, first : first + 1 + room - kept]
    return example | {
      field: example[field][places] for field in self.groups["mask"]
    }

  def blank(self, vocabularies: Vocabularies) -> Example:
    """Return an example of the right shapes, of nothing."""
    tokenizers = vocabularies.tokenizers
    tokens, others = (
      np.array([tokenizers.get(role, tokenizers["first"]).eos_id], np.int32)
      for role in TEXTS
    )
    other = "segments" if self.joined else "others"
    example = dict(inputs=tokens, weights=np.float32(0.0))
    example[other] = np.zeros_like(tokens) if self.joined else others
    if self.loss == "classification":
      example["targets"] = np.int32(0)
    elif "label" in self.roles:
      example["targets"] = np.float32(self.min_score)
    return example

  def sizes(self, vocabularies: Vocabularies) -> dict[str, int]:
    """Return the numbers of tokens and labels."""
    tokenizers, labels = vocabularies.tokenizers, vocabularies.labels
    sizes = dict(vocab_size=tokenizers["first"].vocab_size)
    if "second" in tokenizers:
      sizes["second_vocab_size"] = tokenizers["second"].vocab_size
    if "label" in labels:
      sizes["num_labels"] = len(labels["label"])
    return sizes

  def task_inputs(self, vocabularies: Vocabularies) -> dict[str, Any]:
    """Return what is learned by."""
    del vocabularies
    return dict(learned_by=self.loss)


def build(config: ConfigDict, train_tokenizer: TrainTokenizer) -> Matching:
  """Make the schema that a config describes."""
  options = config.matching
  return Matching(
    train_tokenizer,
    options.loss,
    options.encoders == "cross",
    options.second_tokenizer,
    options.min_score,
    options.max_score,
  )
