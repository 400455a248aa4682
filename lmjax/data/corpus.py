# SPDX-License-Identifier: Apache-2.0
"""The protocol of the data of a run, independent of its task."""

from typing import Any, Protocol

import numpy as np

from lmjax.data.loader import Batches
from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies


class Corpus(Protocol):
  """The data of a run; splits are opened on first use.

  Attributes:
    tokenizer: the tokenizer, or the vocabularies of a task on records; loaded
      from the run directory when a run resumes.
    text_tokenizer: the tokenizer whose tokens are rows of the embedding table.
    fingerprints: digests of the splits.
    sizes: arguments of the model builder: vocab_size, and others that depend
      on the data, such as the number of labels.
    task_inputs: arguments of the task that depend on the data, by name.
    has_resets: whether recurrent state is reset within rows of a batch.
    example_batch: arrays with the shapes of a batch, made without reading data,
      for initialization.
    tokens_per_batch: number of tokens of a batch, padding included.
  """

  tokenizer: Tokenizer | Vocabularies
  text_tokenizer: Tokenizer
  fingerprints: dict[str, str]
  sizes: dict[str, int]
  task_inputs: dict[str, Any]
  has_resets: bool
  example_batch: dict[str, np.ndarray]
  tokens_per_batch: float

  def train_batches(self) -> Batches:
    """Return the training batches; batch i is a pure function of (seed, i)."""

  def eval_batches(self, split: str) -> Batches:
    """Return batches that cover a split exactly once."""

  def counts(self) -> np.ndarray:
    """Return the number of occurrences of each token in train, int64 [V]."""

  def describe(self) -> dict:
    """Return sizes and statistics of the data, for corpus.json."""

  def summary(self, split: str) -> str:
    """Return a summary of the data and of a split, as lines of text."""

  def estimate(self, model: Any) -> dict[str, Any]:
    """Return the collections of a model that are counts of the training text.

    Empty for models that are only trained.
    """
