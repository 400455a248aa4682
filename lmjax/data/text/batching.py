# SPDX-License-Identifier: Apache-2.0
"""Batches of running text by index, without state.

Batch i is a pure function of (seed, i). Its rows are selected for the global
batch and then sliced by process, so that any number of processes sees the same
global batches, and one integer resumes the data exactly.

Fields of a batch, each [rows, T]:

    inputs           int32    tokens
    targets          int32    the next token of each
    weights          float32  1 at targets, 0 at padding
    resets           bool     where the state is reset before the token; absent
                              if it never is
    document_starts  bool     first tokens of documents; only if requested
    first            int32    [rows]: first token of the document that contains
                              the first token of the row; only if requested
    mask             bool     False after the end of the text, where inputs are
                              padding; absent if there is no padding

For example, the stream 4 5 6 7 8 with T = 2 and two rows in stateless order:

    inputs   4 5   6 7
    targets  5 6   7 8
"""

import dataclasses

import numpy as np

from lmjax.data.shuffle import mix, permute
from lmjax.data.text.stream import TokenStream


@dataclasses.dataclass(frozen=True)
class Rows:
  """The rows of a stream; base class of all orders.

  Attributes:
    stream: the tokens.
    seq_len: length T of a row.
    batch_size: rows of a global batch.
    seed: seed of the order.
    reset_at_documents: whether the state is reset at documents; see
      TokenStream.reset_positions.
    add_document_starts: whether batches contain `document_starts`.
    add_first_token: whether batches contain `first`.
    process_index: index of this process's slice of each batch.
    process_count: number of slices; must divide `batch_size`.
  """

  stream: TokenStream
  seq_len: int
  batch_size: int
  seed: int = 0
  reset_at_documents: bool = False
  add_document_starts: bool = False
  add_first_token: bool = False
  process_index: int = 0
  process_count: int = 1

  def local_rows(self) -> np.ndarray:
    """Return the indices of this process's rows within a global batch."""
    rows = self.batch_size // self.process_count
    return np.arange(rows) + self.process_index * rows

  def read(self, starts: np.ndarray, stops: np.ndarray) -> dict:
    """Return the rows from `starts`; targets from `stops` on have weight 0."""
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
      batch["resets"] = _are_among(
        index_BT[:, :-1], self.stream.reset_positions
      )
    if self.add_document_starts:
      batch["document_starts"] = _are_among(
        index_BT[:, :-1], self.stream.starts
      )
    if self.add_first_token:
      document_B = np.searchsorted(self.stream.starts, starts, "right") - 1
      first_B = self.stream.tokens[self.stream.starts[document_B]]
      batch["first"] = first_B.astype(np.int32)
    return batch


def _are_among(index_BT: np.ndarray, ascending: np.ndarray) -> np.ndarray:
  nearest = np.searchsorted(ascending, index_BT)
  return ascending[np.minimum(nearest, len(ascending) - 1)] == index_BT


class ShuffledSequences(Rows):
  """Stateless training: sequences of the stream in a new order every epoch.

  Each epoch splits the stream at another offset, so that tokens are not always
  at the same position, and yields each sequence once.
  """

  def __getitem__(self, index: int) -> dict:
    """Return this process's rows of batch `index`."""
    targets = self.stream.num_tokens - 1
    num_sequences = max(1, targets // self.seq_len - 1)
    sample = index * self.batch_size + self.local_rows()
    epoch = (sample // num_sequences).astype(np.uint64)
    key = mix(mix(np.uint64(self.seed)) ^ epoch)
    sequence = permute(sample % num_sequences, num_sequences, key)
    slack = np.uint64(targets - num_sequences * self.seq_len + 1)
    start = (mix(key) % slack).astype(np.int64) + sequence * self.seq_len
    return self.read(start, start + self.seq_len + 1)


class OrderedSequences(Rows):
  """Stateless evaluation: every sequence once, in order.

  Padding after the end of the stream has weight 0 and is masked.
  """

  def __len__(self) -> int:
    """Return the number of batches."""
    return -(-(self.stream.num_tokens - 1) // (self.seq_len * self.batch_size))

  def __getitem__(self, index: int) -> dict:
    """Return this process's rows of batch `index`."""
    start = (index * self.batch_size + self.local_rows()) * self.seq_len
    batch = self.read(start, start + self.seq_len + 1)
    index_BT = start[:, None] + np.arange(self.seq_len)
    return batch | {"mask": index_BT < self.stream.num_tokens}


class ContiguousStreams(Rows):
  """Stateful order: each row continues the same row of the previous batch.

  The text is split into `batch_size` contiguous streams, and batch i consists
  of sequence i of every stream. The next epoch starts with a reset. With tokens
  4 to 11, two rows and T = 2:

      batch 0   4 5    8  9
      batch 1   6 7   10 11
  """

  @property
  def stream_length(self) -> int:
    """Return the number of targets in a contiguous stream."""
    return -(-(self.stream.num_tokens - 1) // self.batch_size)

  def __len__(self) -> int:
    """Return the number of batches in an epoch."""
    return -(-self.stream_length // self.seq_len)

  def __getitem__(self, index: int) -> dict:
    """Return this process's rows of batch `index`, of any epoch."""
    within_epoch = index % len(self)
    first = self.local_rows() * self.stream_length
    start = first + within_epoch * self.seq_len
    batch = self.read(start, first + self.stream_length + 1)
    resets_BT = batch.setdefault(
      "resets", np.zeros_like(batch["inputs"], dtype=bool)
    )
    if within_epoch == 0:
      resets_BT[:, 0] = True
    return batch


TRAIN_ORDERS = {"stateless": ShuffledSequences, "stateful": ContiguousStreams}
EVAL_ORDERS = {"stateless": OrderedSequences, "stateful": ContiguousStreams}
