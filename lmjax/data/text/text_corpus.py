# SPDX-License-Identifier: Apache-2.0
"""Running text as batches of token sequences."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lmjax.data.loader import Batches
from lmjax.data.sources.text_sources import Source
from lmjax.data.text.batching import EVAL_ORDERS, TRAIN_ORDERS, Rows
from lmjax.data.text.datasets import DATASETS
from lmjax.data.text.objectives.objective import Objective
from lmjax.data.text.stream import TokenStream, mark, open_stream
from lmjax.data.tokenizers import TOKENIZERS, Tokenizer
from lmjax.data.vocabularies import Vocabularies, first_tokenizer
from lmjax.errors import UserError


class TextCorpus:
  """The documents that a config names; see Corpus.

  Args:
    config: a finalized config.
    objective: what rewrites sequences for the task.
    examples: what turns sequences into batches; see lmjax.data.text.examples.
    known: the tokenizer of a run that is resumed; None for a new run.
    given: the tokenizer of the source run of a warm start; None to train a
      tokenizer on the split train.
    cache_dir: the folder of encoded corpora.
  """

  def __init__(
    self,
    config: ConfigDict,
    objective: Objective,
    examples: Callable[..., Batches],
    known: Tokenizer | None,
    given: Vocabularies | Tokenizer | None,
    cache_dir: Path,
  ):
    self._config, self._known, self._given = config, known, given
    self.objective, self._make_batches = objective, examples
    self._cache_dir = cache_dir

  @functools.cached_property
  def sources(self) -> dict[str, Source]:
    """Open the corpus: split to documents."""
    data = self._config.data
    return DATASETS[data.source](data, self._cache_dir)

  @functools.cached_property
  def tokenizer(self) -> Tokenizer:
    """Return the run's tokenizer, or train one on the split train."""
    if self._known:
      return self._known
    if self._given:
      given = first_tokenizer(self._given)
      return given.with_special_tokens(self._extras or given.special_tokens)
    data = self._config.data
    train = self.sources["train"]
    tokenizer = TOKENIZERS[data.tokenizer].train(
      (train[index] for index in range(len(train))),
      data.vocab_size,
      data.min_freq,
      data.lower_case,
    )
    return tokenizer.with_special_tokens(self._extras)

  @property
  def _extras(self) -> tuple[str, ...]:
    """Return the special tokens of the objective or of control codes."""
    control_code_from, train = (
      self.objective.control_code_from,
      self.sources["train"],
    )
    if not control_code_from:
      return self.objective.special_tokens
    labels = {
      train.label(index, control_code_from) for index in range(len(train))
    }
    return tuple(mark(label) for label in sorted(labels))

  @property
  def text_tokenizer(self) -> Tokenizer:
    """Return the same: there is but one."""
    return self.tokenizer

  def stream(self, split: str) -> TokenStream:
    """Open the tokens of a split.

    Raises:
      UserError: if the split is not there, empty, or shorter than a window.
    """
    data = self._config.data
    corpus = f"data.source={data.source} {data.path or data.name}".strip()
    if split in self.sources:
      stream = open_stream(
        self.sources[split],
        self.tokenizer,
        self._cache_dir,
        data.append_eos,
        self.objective.control_code_from,
      )
    if split not in self.sources or not stream.num_tokens:
      raise UserError(
        f"{corpus} is empty; there is nothing to train on."
        if split == "train"
        else f"{corpus} has no text in split {split}; set "
        f"data.{split}_fraction or data.{split}_files."
      )
    needed = self.objective.seq_len + 1 if split == "train" else 2
    if stream.num_tokens < needed:
      raise UserError(
        f"split {split} of {corpus} has {stream.num_tokens} tokens and needs "
        f"at least {needed}; give more text or a smaller data.seq_len="
        f"{data.seq_len}."
      )
    return stream

  def rows(self, order: type[Rows], split: str) -> Rows:
    """Return this process's rows of the batches of a split."""
    data = self._config.data
    return order(
      self.stream(split),
      self.objective.seq_len,
      data.batch_size,
      seed=self._config.seed,
      reset_at_documents=data.reset_at_documents,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def _examples(self, orders: dict[str, type[Rows]], split: str) -> Batches:
    """Make of a split's rows what the task learns from."""
    config = self._config
    return self._make_batches(
      config,
      self.objective,
      self.rows(orders[config.data.order], split),
      functools.partial(self.stream, "train"),
      self.tokenizer,
      self._cache_dir,
    )

  def train_batches(self) -> Batches:
    """Return the batches to train on, by number."""
    return self._examples(TRAIN_ORDERS, "train")

  def eval_batches(self, split: str) -> Batches:
    """Return the batches that cover a split once."""
    return self._examples(EVAL_ORDERS, split)

  @property
  def fingerprints(self) -> dict[str, str]:
    """Name the text of each split by its digest."""
    return {k: v.fingerprint for k, v in sorted(self.sources.items())}

  @property
  def sizes(self) -> dict[str, int]:
    """Return how many tokens there are."""
    return dict(vocab_size=self.tokenizer.vocab_size)

  @property
  def task_inputs(self) -> dict[str, Any]:
    """Return what a task needs to know about the text."""
    return dict(
      units_V=self.tokenizer.units(),
      unit=self.tokenizer.unit,
      stateful=self._config.data.order == "stateful",
    )

  @property
  def has_resets(self) -> bool:
    """Say whether memory is emptied within a batch."""
    data = self._config.data
    return data.reset_at_documents or data.order == "stateful"

  @property
  def example_batch(self) -> dict[str, np.ndarray]:
    """Return a batch of nothing."""
    data = self._config.data
    return {"inputs": np.zeros((data.batch_size, data.seq_len), np.int32)}

  @property
  def tokens_per_batch(self) -> float:
    """Return how many tokens a batch reads, weighed or not."""
    return self._config.data.batch_size * self._config.data.seq_len

  def counts(self) -> np.ndarray:
    """Count how often each token occurs in the split train, int64 [V]."""
    return self.stream("train").counts(self.tokenizer.vocab_size)

  def describe(self) -> dict:
    """Describe the text of the split train."""
    train = self.stream("train")
    return dict(
      train_tokens=train.num_tokens, train_documents=train.num_documents
    )

  def summary(self, split: str) -> str:
    """Describe the training text, and how hard a split is to predict."""
    train = self.stream("train")
    counts_V = self.stream(split).counts(self.tokenizer.vocab_size)
    return (
      f"training text: {train.num_tokens:,} tokens in "
      f"{train.num_documents:,} documents, vocabulary "
      f"{self.tokenizer.vocab_size:,}\n"
      f"unigram entropy of {split}: {entropy(counts_V):.4f} nats a token"
    )

  def estimate(self, model: Any) -> dict[str, Any]:
    """Let a model count in the training text."""
    train = self.stream("train")
    return model.estimate(train.tokens, train.starts, self.tokenizer.names())


def entropy(counts: np.ndarray) -> float:
  """Compute the entropy, in nats, of what was counted.

  It is the loss of the best model that knows how frequent each token is and
  nothing else.
  """
  share = counts[counts > 0] / counts.sum()
  return float(-(share * np.log(share)).sum())
