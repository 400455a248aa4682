# SPDX-License-Identifier: Apache-2.0
"""A text, and what is to be written for it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.records.schemas.schema import (
  BadRow,
  Example,
  Row,
  text_of,
  truncate_at_end,
)
from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies

TrainTokenizer = Callable[..., Tokenizer]


@dataclasses.dataclass(frozen=True)
class Seq2Seq:
  """Source and target to the fields of a batch.

      sources      int32    the source and <eos> [B, S]
      source_mask  bool     true on them [B, S]
      inputs       int32    <bos> and the target [B, T]
      targets      int32    the target and <eos> [B, T]
      target_mask  bool     true on them [B, T]
      weights      float32  1 on them [B, T]

  Attributes:
    train_tokenizer: makes a tokenizer of texts, and of a kind.
    target_tokenizer: the kind that targets have of their own; empty for one
      vocabulary.
    max_target_length: how many tokens are written at most.
  """

  train_tokenizer: TrainTokenizer
  target_tokenizer: str
  max_target_length: int

  roles = ("source", "target")
  inputs = ("source",)
  groups = {
    "source_mask": ("sources",),
    "target_mask": ("inputs", "targets", "weights"),
  }
  pads = {}
  whole = False

  def learn(
    self, rows: Iterable[Row], known: Mapping[str, Tokenizer]
  ) -> Vocabularies:
    """Collect the tokens of both texts, together or apart."""
    texts = [(text_of(row, "source"), text_of(row, "target")) for row in rows]
    sources, targets = ([text[side] for text in texts] for side in range(2))
    if not self.target_tokenizer:
      both = known.get("source") or self.train_tokenizer([*sources, *targets])
      return Vocabularies({"source": both})
    target = known.get("target")
    target = target or self.train_tokenizer(targets, self.target_tokenizer)
    source = known.get("source") or self.train_tokenizer(sources)
    return Vocabularies(dict(target=target, source=source))

  def encode(self, row: Row, vocabularies: Vocabularies) -> Example:
    """Turn a row into an example."""
    source_tokenizer = vocabularies.tokenizers["source"]
    tokenizer = target_tokenizer(vocabularies)
    source = source_tokenizer.encode(text_of(row, "source"))
    if not len(source):
      raise BadRow("its source has no token")
    target = np.zeros(0, np.int32)
    if "target" in row:
      target = tokenizer.encode(text_of(row, "target"))
    return dict(
      sources=np.append(source, source_tokenizer.eos_id).astype(np.int32),
      inputs=np.append(tokenizer.bos_id, target).astype(np.int32),
      targets=np.append(target, tokenizer.eos_id).astype(np.int32),
      weights=np.ones(len(target) + 1, np.float32),
    )

  def truncate(self, example: Example, seq_len: int) -> Example:
    """Truncate texts at the end."""
    return truncate_at_end(example, self.groups, seq_len)

  def blank(self, vocabularies: Vocabularies) -> Example:
    """Return an example of the right shapes, of nothing."""
    source_end = vocabularies.tokenizers["source"].eos_id
    end = np.array([target_tokenizer(vocabularies).eos_id], np.int32)
    return dict(
      sources=np.array([source_end], np.int32),
      inputs=end,
      targets=end,
      weights=np.zeros(1, np.float32),
    )

  def sizes(self, vocabularies: Vocabularies) -> dict[str, int]:
    """Return the number of tokens, and of those of sources if it differs."""
    sizes = dict(vocab_size=target_tokenizer(vocabularies).vocab_size)
    if self.target_tokenizer:
      source = vocabularies.tokenizers["source"]
      sizes["source_vocab_size"] = source.vocab_size
    return sizes

  def task_inputs(self, vocabularies: Vocabularies) -> dict[str, Any]:
    """Return what a task needs to know about tokens and targets."""
    tokenizer = target_tokenizer(vocabularies)
    return dict(
      units_V=tokenizer.units(),
      unit=tokenizer.unit,
      stateful=False,
      first_token=tokenizer.bos_id,
      stop_token=tokenizer.eos_id,
      pad_token=tokenizer.pad_id,
      banned=(tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id),
      max_target_length=self.max_target_length,
    )


def target_tokenizer(vocabularies: Vocabularies) -> Tokenizer:
  """Return what targets are written in: a tokenizer of their own, if any."""
  tokenizers = vocabularies.tokenizers
  return tokenizers.get("target", tokenizers["source"])


def build(config: ConfigDict, train_tokenizer: TrainTokenizer) -> Seq2Seq:
  """Make the schema that a config describes."""
  options = config.seq2seq
  limit = options.max_target_length or config.data.seq_len
  return Seq2Seq(train_tokenizer, options.target_tokenizer, limit)
