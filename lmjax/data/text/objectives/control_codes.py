# SPDX-License-Identifier: Apache-2.0
"""Language modeling under control codes: texts that begin with their kind."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.text.batching import Rows
from lmjax.data.text.objectives.objective import Objective, Rewritten
from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class ControlCodes(Objective):
  """Put the code of its document in front of each row.

  One learned token for each topic, author or style, as CTRL has it (Keskar et
  al. 2019, arXiv:1909.05858); the first token of a document in the stream is
  its code too. A row of 5 tokens, of text whose code is C, with the begin of
  another document in it:

      inputs   C  4  5  D  6
      targets  4  5  D  6  7
      weights  0  1  0  1  1

  Codes are given and not predicted, and the first token of a row is counted in
  the row before it.

  Attributes:
    control_code_from: how a document is labeled; see
      lmjax.data.sources.text_sources.Source.label.
  """

  control_code_from: str = ""

  @property
  def longest(self) -> int:
    """Return the length of a row with its code."""
    return self.seq_len + 1

  def over(self, rows: Rows, tokenizer: Tokenizer) -> Rewritten:
    """Rewrite the batches of `rows`, told what their documents begin with."""
    rows = dataclasses.replace(rows, tells_first=True)
    return super().over(rows, tokenizer)

  def rewrite(
    self, batch: dict, keys_B: np.ndarray, tokenizer: Tokenizer
  ) -> dict:
    """Put a code in front of every row."""
    del keys_B
    batch = dict(batch)
    first_B1, inputs_BT = batch.pop("first")[:, None], batch.pop("inputs")
    targets_BT, weights_BT = batch.pop("targets"), batch.pop("weights")
    is_text_BT = targets_BT < tokenizer.base_vocab_size
    rewritten = dict(
      inputs=np.concatenate([first_B1, inputs_BT], axis=1),
      targets=np.concatenate([inputs_BT[:, :1], targets_BT], axis=1),
      weights=_behind(0, weights_BT * is_text_BT),
    )
    if "resets" in batch:
      rewritten["resets"] = _behind(False, batch["resets"])
    if "mask" in batch:
      rewritten["mask"] = _behind(True, batch["mask"])
    return rewritten


def _behind(value: float | bool, array_BT: np.ndarray) -> np.ndarray:
  """Put a column of one value before an array."""
  return np.pad(array_BT, ((0, 0), (1, 0)), constant_values=value)


def build(config: ConfigDict) -> ControlCodes:
  """Make the objective that a config describes.

  Raises:
    UsageError: if documents have no codes, or rows are no texts of their own.
  """
  data, control_code_from = config.data, config.objective.control_code_from
  if not control_code_from:
    raise UsageError(
      "objective.control_code_from is empty; set it to file, folder or the "
      "name of a field."
    )
  if data.order != "stateless":
    raise UsageError(
      "task=control_codes puts a code in front of each row, which data.order="
      f"{data.order} would go on through; set data.order=stateless."
    )
  if data.seq_len < 2:
    raise UsageError(
      f"data.seq_len={data.seq_len} must be at least 2 for "
      "task=control_codes: a code and a token."
    )
  return ControlCodes(data.seq_len - 1, control_code_from)
