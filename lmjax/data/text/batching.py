# SPDX-License-Identifier: Apache-2.0
"""Batches by number: which tokens batch i holds, decided without state.

Batch i is a pure function of the seed and i. Its rows are chosen for the whole
job and then sliced by process, so any number of processes sees the same global
batches, and one integer resumes the data exactly.

Fields of a batch, each [rows, T]:

    inputs   int32    tokens
    targets  int32    the tokens that follow them
    weights  float32  1 where a target counts, 0 on padding
    resets   bool     where memory is emptied before the token; there only if
                      that can happen
    begins   bool     where a document begins, if that was asked for
    first    int32    [rows]: with what token the document of each row's first
                      token begins, if that was asked for
    mask     bool     false behind the end of the text, where inputs stand for
                      nothing; there only if that can happen

What a task makes of them, lmjax/data/examples.py names.
"""

import dataclasses

import numpy as np

from lmjax.data.shuffle import mix, permute
from lmjax.data.text.stream import TokenStream


@dataclasses.dataclass(frozen=True)
class Rows:
  """How a stream is cut into rows; the base of all orders.

  Attributes:
    stream: the tokens.
    seq_len: length T of a row.
    batch_size: rows of a global batch.
    seed: seed of the order.
    reset_at_documents: whether memory is emptied where a document begins; see
      TokenStream.begins.
    mark_documents: whether batches tell where documents begin.
    tells_first: whether batches tell what they begin with.
    process_index: which slice of each batch is wanted.
    process_count: how many slices there are; divides `batch_size`.
  """

  stream: TokenStream
  seq_len: int
  batch_size: int
  seed: int = 0
  reset_at_documents: bool = False
  mark_documents: bool = False
  tells_first: bool = False
  process_index: int = 0
  process_count: int = 1

  def local_rows(self) -> np.ndarray:
    """Return the numbers of this process's rows within a global batch."""
    rows = self.batch_size // self.process_count
    return np.arange(rows) + self.process_index * rows

  def read(self, starts: np.ndarray, stops: np.ndarray) -> dict:
    """Read rows that begin at `starts`; targets at `stops` and on weigh 0."""
    last = self.stream.num_tokens - 1
    index_BT = starts[:, None] + np.arange(self.seq_len + 1)
    tokens_BT = self.stream.tokens[np.minimum(index_BT, last)].astype(np.int32)
    counts_BT = index_BT[:, 1:] < np.minimum(stops, last + 1)[:, None]
    batch = dict(
      inputs=tokens_BT[:, :-1],
      targets=tokens_BT[:, 1:],
      weights=counts_BT.astype(np.float32),
    )
    if self.reset_at_documents:
      batch["resets"] = _are_among(index_BT[:, :-1], self.stream.begins)
    if self.mark_documents:
      batch["begins"] = _are_among(index_BT[:, :-1], self.stream.starts)
    if self.tells_first:
      document_B = np.searchsorted(self.stream.starts, starts, "right") - 1
      first_B = self.stream.tokens[self.stream.starts[document_B]]
      batch["first"] = first_B.astype(np.int32)
    return batch


def _are_among(index_BT: np.ndarray, ascending: np.ndarray) -> np.ndarray:
  nearest = np.searchsorted(ascending, index_BT)
  return ascending[np.minimum(nearest, len(ascending) - 1)] == index_BT


class ShuffledSequences(Rows):
  """Stateless training: windows of the stream in a new order every epoch.

  Each epoch cuts the stream at another offset and sees each window once.
  """

  def __getitem__(self, index: int) -> dict:
    """Return this process's rows of batch `index`."""
    targets = self.stream.num_tokens - 1
    num_sequences = max(1, targets // self.seq_len - 1)
    sample = index * self.batch_size + self.local_rows()
    epoch = (sample // num_sequences).astype(np.uint64)
    key = mix(mix(np.uint64(self.seed)) ^ epoch)
    seq_len = permute(sample % num_sequences, num_sequences, key)
    slack = np.uint64(targets - num_sequences * self.seq_len + 1)
    start = (mix(key) % slack).astype(np.int64) + seq_len * self.seq_len
    return self.read(start, start + self.seq_len + 1)


class OrderedSequences(Rows):
  """Stateless evaluation: every window once, from front to back.

  What is behind the end of the stream weighs 0 and is masked.
  """

  def __len__(self) -> int:
    """Return the number of batches."""
    return -(-(self.stream.num_tokens - 1) // (self.seq_len * self.batch_size))

  def __getitem__(self, index: int) -> dict:
    """Return this process's rows of batch `index`."""
    start = (index * self.batch_size + self.local_rows()) * self.seq_len
    batch = self.read(start, start + self.seq_len + 1)
    place_BT = start[:, None] + np.arange(self.seq_len)
    return batch | {"mask": place_BT < self.stream.num_tokens}


class ContiguousStreams(Rows):
  """Stateful order: each row goes on where it stopped in the batch before.

  The stream is cut into `batch_size` contiguous lanes; window i of every lane
  makes batch i. At the lanes' end the next epoch begins, with memory emptied.
  """

  @property
  def stream_length(self) -> int:
    """Return the number of targets in a lane."""
    return -(-(self.stream.num_tokens - 1) // self.batch_size)

  def __len__(self) -> int:
    """Return the number of batches in an epoch."""
    return -(-self.stream_length // self.seq_len)

  def __getitem__(self, index: int) -> dict:
    """Return this process's rows of batch `index`, of any epoch."""
    within_epoch = index % len(self)
    lane = self.local_rows() * self.stream_length
    start = lane + within_epoch * self.seq_len
    batch = self.read(start, lane + self.stream_length + 1)
    resets_BT = batch.setdefault(
      "resets", np.zeros_like(batch["inputs"], dtype=bool)
    )
    if within_epoch == 0:
      resets_BT[:, 0] = True
    return batch


TRAIN_ORDERS = {"stateless": ShuffledSequences, "stateful": ContiguousStreams}
EVAL_ORDERS = {"stateless": OrderedSequences, "stateful": ContiguousStreams}
