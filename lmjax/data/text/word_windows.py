# SPDX-License-Identifier: Apache-2.0
"""Batches for word2vec: words, context sizes and negative samples.

Mikolov et al. 2013 (arXiv:1301.3781, arXiv:1310.4546). Fields of a batch, whose
rows hold T words of the text in order:

    inputs     int32    [rows, T]  words
    positions  int32    [rows, T]  their positions; words of two documents, or
                                   of two sequences, are further apart than any
                                   context
    reach      int32    [rows, T]  context size of each word, sampled from 1 to
                                   `context_size`; 0 at padding
    negatives  int32    [rows, N]  negative samples, shared by a row
    words      float32  [rows]     number of words of text in the row, including
                                   those removed by subsampling

With context sizes 1, 2 and 1, the words 7 8 9 have the pairs (7, 8), (8, 7),
(8, 9) and (9, 8).
"""

import dataclasses
import math

import numpy as np

from lmjax.data.text.batching import Rows
from lmjax.errors import UserError


class WordWindows:
  """Sequences of the text from which frequent words are removed at random.

  Removed words leave no gap, so contexts extend further. The remaining words of
  a batch are concatenated into narrower rows of T words, where T is a tenth
  more than the mean of the split needs; words that still do not fit are dropped
  from the batch.

  Args:
    rows: sequences of the text.
    counts_V: number of occurrences of each token in the training text.
    is_word_V: False for tokens that are not words; these are removed first.
    context_size: maximum context size to either side.
    subsample: threshold t of subsampling: a word of frequency f is retained
      with probability √(t / f). 0 retains all.
    num_sampled: number N of negative samples per row.
    noise_exponent: negative samples are sampled in proportion to counts raised
      to this power.
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
      rows, add_document_starts=True, process_index=0, process_count=1
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
    starts_BT = text["document_starts"].copy()
    starts_BT[:, 0] = True
    kept = rng.random(counts_BT.shape) < self.keep_V[text["inputs"]]
    kept = (kept & counts_BT).reshape(-1)
    shape = self.batch_size, self.width
    size = self.batch_size * self.width
    too_many = np.flatnonzero(kept)[size:]
    end = too_many[0] if len(too_many) else kept.size
    kept[end:] = False
    apart = self._context_size * np.cumsum(starts_BT)[kept]
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
