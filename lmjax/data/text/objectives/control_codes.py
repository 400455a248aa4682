# SPDX-License-Identifier: Apache-2.0
"""Language modeling with control codes."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.text.batching import Rows
from lmjax.data.text.objectives.objective import Objective, Rewritten
from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class ControlCodes(Objective):
  """Prepend the control code of its document to each row.

  A control code is one learned token per topic, author or style, as in CTRL
  (Keskar et al. 2019, arXiv:1909.05858). It is also the first token of each
  document in the stream. A row of 5 tokens of a document with code C, in which
  another document with code D starts:

      inputs   C  4  5  D  6
      targets  4  5  D  6  7
      weights  0  1  0  1  1

  Codes are given, not predicted, and the first token of a row is a target of
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
    """Rewrite batches, which need the first token of their documents."""
    rows = dataclasses.replace(rows, add_first_token=True)
    return super().over(rows, tokenizer)

  def rewrite(
    self, batch: dict, keys_B: np.ndarray, tokenizer: Tokenizer
  ) -> dict:
    """Prepend a code to every row."""
    del keys_B
    batch = dict(batch)
    first_B1, inputs_BT = batch.pop("first")[:, None], batch.pop("inputs")
    targets_BT, weights_BT = batch.pop("targets"), batch.pop("weights")
    is_text_BT = targets_BT < tokenizer.base_vocab_size
    rewritten = dict(
      inputs=np.concatenate([first_B1, inputs_BT], axis=1),
      targets=np.concatenate([inputs_BT[:, :1], targets_BT], axis=1),
      weights=_prepend(0, weights_BT * is_text_BT),
    )
    if "resets" in batch:
      rewritten["resets"] = _prepend(False, batch["resets"])
    if "mask" in batch:
      rewritten["mask"] = _prepend(True, batch["mask"])
    return rewritten


def _prepend(value: float | bool, array_BT: np.ndarray) -> np.ndarray:
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
      "task=control_codes prepends a code to each row, but data.order="
      f"{data.order} continues rows of the batch before; set "
      "data.order=stateless."
    )
  if data.seq_len < 2:
    raise UsageError(
      f"data.seq_len={data.seq_len} must be at least 2 for "
      "task=control_codes: a code and a token."
    )
  return ControlCodes(data.seq_len - 1, control_code_from)
