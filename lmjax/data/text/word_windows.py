# SPDX-License-Identifier: Apache-2.0
"""Batches for word2vec: words, how far each looks, and words drawn as noise.

Mikolov et al. 2013 (arXiv:1301.3781, arXiv:1310.4546). Fields of a batch, whose
rows hold T words of the text in order:

    inputs     int32    [rows, T]  words
    positions  int32    [rows, T]  where they are; words of two documents, or of
                                   two windows of the text, are out of reach
    reach      int32    [rows, T]  distance within which others are the word's
                                   context, drawn from 1 to `context_size`; 0 on
                                   padding, which is out of everyone's reach
    negatives  int32    [rows, N]  words drawn as noise for all of a row
    words      float32  [rows]     running words of text that the row stands
                                   for, those that were left out counted
"""

import dataclasses
import math

import numpy as np

from lmjax.data.text.batching import Rows
from lmjax.errors import UserError


class WordWindows:
  """Windows of the text, of which frequent words are left out by chance.

  Words close up where others are left out, so contexts reach further. What is
  kept of a batch is laid end to end into narrower rows of T words; T leaves a
  tenth of room behind the mean of the split, and what would still not fit, at
  the end, is no part of the batch.

  Args:
    rows: windows of the text.
    counts_V: how often each token occurs in the training text.
    is_word_V: false for tokens that are no words; they are taken out first.
    context_size: how many words to either side a word sees at most.
    subsample: share t of the text above which words are left out: one of
      frequency f stays with probability √(t / f). 0 leaves all in.
    num_sampled: how many negative words N are drawn for a row.
    noise_exponent: negative words are drawn in proportion to their counts to
      the power of this.
  """

  def __init__(
    self,
    rows: Rows,
    counts_V: np.ndarray,
    is_word_V: np.ndarray,
    context_size: int,
    subsample: float,
    num_sampled: int,
    noise_exponent: float,
  ):
    words_V = np.where(is_word_V, counts_V, 0)
    if not words_V.any():
      raise UserError(
        "no word of the training text is in the vocabulary; lower "
        "data.min_freq or raise data.vocab_size."
      )
    self.batch_size = rows.batch_size
    self._local = rows.local_rows()
    self._rows = dataclasses.replace(
      rows, mark_documents=True, process_index=0, process_count=1
    )
    self._context_size, self._num_drawn = context_size, num_sampled
    self.keep_V = keep_probabilities(words_V, subsample)
    self._noise_V = noise_distribution(words_V, noise_exponent).cumsum()
    tokens = rows.batch_size * rows.seq_len
    split_V = rows.stream.counts(len(counts_V))
    kept = tokens * (split_V @ self.keep_V) / split_V.sum()
    room = 1.1 * kept + 4 * np.sqrt(kept)
    self.width = math.ceil(min(room, tokens) / rows.batch_size)

  def __len__(self) -> int:
    """Return the number of batches that cover the text once."""
    return len(self._rows)

  def __getitem__(self, index: int) -> dict:
    """Return this process's rows of batch `index`."""
    rng = np.random.default_rng((self._rows.seed, index))
    text = self._rows[index]
    counts_BT = text["weights"] > 0
    begins_BT = text["begins"].copy()
    begins_BT[:, 0] = True
    kept = rng.random(counts_BT.shape) < self.keep_V[text["inputs"]]
    kept = (kept & counts_BT).reshape(-1)
    shape = self.batch_size, self.width
    size = self.batch_size * self.width
    too_many = np.flatnonzero(kept)[size:]
    end = too_many[0] if len(too_many) else kept.size
    kept[end:] = False
    apart = self._context_size * np.cumsum(begins_BT)[kept]
    inputs, positions = np.zeros((2, size), np.int32)
    reach = np.zeros(size, np.int32)
    number = len(apart)
    inputs[:number] = text["inputs"].reshape(-1)[kept]
    positions[:number] = np.arange(number) + apart
    positions[number:] = -(self._context_size + 1) * np.arange(
      1, size - number + 1
    )
    reach[:number] = rng.integers(1, self._context_size, number, endpoint=True)
    uniform = rng.random((self.batch_size, self._num_drawn))
    batch = dict(
      inputs=inputs.reshape(shape),
      positions=positions.reshape(shape),
      reach=reach.reshape(shape),
      negatives=np.searchsorted(
        self._noise_V[:-1], uniform * self._noise_V[-1], "right"
      ).astype(np.int32),
      words=np.full(
        self.batch_size,
        counts_BT.reshape(-1)[:end].sum() / self.batch_size,
        np.float32,
      ),
    )
    return {name: field[self._local] for name, field in batch.items()}


def keep_probabilities(words_V: np.ndarray, subsample: float) -> np.ndarray:
  """Return the probability with which each word stays in the text, float64 [V].

  >>> keep_probabilities(np.array([0, 900, 100]), 0.1)
  [0.0, 0.33, 1.0]
  """
  frequency_V = words_V / words_V.sum()
  threshold = subsample or np.inf
  kept_V = np.minimum(1.0, np.sqrt(threshold / np.maximum(frequency_V, 1e-30)))
  return np.where(words_V > 0, kept_V, 0.0)


def noise_distribution(words_V: np.ndarray, exponent: float) -> np.ndarray:
  """Return the probability of each word as a negative one, float64 [V]."""
  weights_V = np.where(words_V > 0, words_V.astype(np.float64) ** exponent, 0.0)
  return weights_V / weights_V.sum()
