# SPDX-License-Identifier: Apache-2.0
"""What a run learns from, whatever its task is."""

from typing import Any, Protocol

import numpy as np

from lmjax.data.loader import Batches
from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies


class Corpus(Protocol):
  """The data of a run, opened when they are asked for.

  Attributes:
    tokenizer: what the texts are written in; loaded if the run has begun.
    text_tokenizer: what the embedding of a model is of.
    fingerprints: digests of the splits.
    sizes: what a model must know of the vocabulary, vocab_size at least.
    task_inputs: what the fields of a task are filled with, by their names.
    has_resets: whether memory is emptied within a batch.
    example_batch: arrays of the shapes of a batch, made without reading data.
    tokens_per_batch: how many tokens a batch has, padding counted.
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
    """Return the batches to train on, by number."""

  def eval_batches(self, split: str) -> Batches:
    """Return the batches that cover a split once."""

  def counts(self) -> np.ndarray:
    """Count how often each token occurs in the split train, int64 [V]."""

  def describe(self) -> dict:
    """Describe the data for the run directory."""

  def summary(self, split: str) -> str:
    """Describe the data for people, in lines; a split in particular."""

  def estimate(self, model: Any) -> dict[str, Any]:
    """Make what a model counts in the training text."""
