# SPDX-License-Identifier: Apache-2.0
"""What rewrites rows of text, and how batches stay functions of their number.

Everything random about a row comes from the seed and the row's number in the
whole job, over all batches and processes. So a row that is met again in another
epoch is rewritten in another way, evaluation sees the same each time, and any
number of processes the same global batches.
"""

import dataclasses

import numpy as np

from lmjax.data.shuffle import mix
from lmjax.data.text.batching import Rows
from lmjax.data.tokenizers import Tokenizer

_SALT = np.uint64(0x6F626A65637469)  # not the keys that windows are shuffled by


@dataclasses.dataclass(frozen=True)
class Objective:
  """What a task needs of rows of text, and what rewrites them; the base.

  Attributes:
    seq_len: number of text tokens in a row.
    special_tokens: names of the special tokens that it inserts.
  """

  seq_len: int

  special_tokens = ()
  control_code_from = (
    ""  # what the token before each document is; see ControlCodes
  )

  @property
  def longest(self) -> int:
    """Return the length of the longest row that a model sees."""
    return self.seq_len

  def over(self, rows: Rows, tokenizer: Tokenizer) -> "Rewritten":
    """Rewrite the batches of `rows`."""
    return Rewritten(rows, self, tokenizer)

  def rewrite(
    self, batch: dict, keys_B: np.ndarray, tokenizer: Tokenizer
  ) -> dict:
    """Rewrite a batch.

    Args:
      batch: what lmjax.data.text.batching reads; it is left as it is.
      keys_B: uint64, a key to what is random about each row.
      tokenizer: has the extras.

    Returns:
      The fields of the new batch.
    """
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Rewritten:
  """Batches of rows, rewritten; each a function of its number.

  Attributes:
    rows: reads the text.
    objective: rewrites it.
    tokenizer: has the objective's extras.
  """

  rows: Rows
  objective: Objective
  tokenizer: Tokenizer

  @property
  def batch_size(self) -> int:
    """Rows of a global batch."""
    return self.rows.batch_size

  def __len__(self) -> int:
    """Return the number of batches, where the order of rows has an end."""
    return len(self.rows)

  def __getitem__(self, index: int) -> dict:
    """Return this process's rows of batch `index`."""
    sample = index * self.rows.batch_size + self.rows.local_rows()
    key = mix(np.uint64(self.rows.seed) ^ _SALT)
    keys_B = mix(key ^ sample.astype(np.uint64))
    return self.objective.rewrite(self.rows[index], keys_B, self.tokenizer)
