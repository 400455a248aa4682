# SPDX-License-Identifier: Apache-2.0
"""Fill in the middle: move the middle of a text to its end."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.shuffle import uniform
from lmjax.data.text.batching import Rows
from lmjax.data.text.objectives.objective import Objective, Rewritten
from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError

PREFIX, SUFFIX, MIDDLE = MARKS = ("<prefix>", "<suffix>", "<middle>")
# Order of the sections of a row: the text before the document, `<prefix>`, the
# prefix, `<suffix>`, the suffix, `<middle>`, the middle, `<eos>`, and the text
# after the document.
_PSM = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8])
_SPM = np.array([0, 1, 5, 2, 3, 4, 6, 7, 8])
_BEFORE, _PREFIX, _SUFFIX, _MIDDLE, _AFTER = 0, 2, 4, 6, 8
_MARKED = [1, 3, 5, 7]


@dataclasses.dataclass(frozen=True)
class FillInTheMiddle(Objective):
  """Move the middle of some rows to their ends (Bavarian et al. 2022).

  A row is rewritten with probability `rate` (arXiv:2207.14255, at the level of
  the context): the longest part of one document in the row is split at two
  random positions, and the three parts are reordered to prefix – suffix –
  middle (PSM) or, with probability `spm_rate`, suffix – prefix – middle (SPM,
  mixed with PSM as in the paper). `<eos>` ends the middle. The special tokens
  push four tokens out of the row. The loss is next-token prediction, except
  that special tokens other than `<eos>` are not targets: nothing in the text
  predicts them. Splits are between tokens, not characters.

  With tokens 4 to 14 for text and P, S, M, E for the special tokens and
  `<eos>`, a row of 10 inputs that is split after 5 and 7:

      text          4  5  6  7  8  9 10 11 12 13 14
      PSM: inputs   P  4  5  S  8  9 10  M  6  7
           targets  4  5  S  8  9 10  M  6  7  E
           weights  1  1  0  1  1  1  0  1  1  1
      SPM: inputs   P  S  8  9 10  M  4  5  6  7
           targets  S  8  9 10  M  4  5  6  7  E
           weights  0  1  1  1  0  1  1  1  1  1

  Attributes:
    rate: fraction of rows that are rewritten.
    spm_rate: fraction of these that are SPM.
    resets: whether the state is reset at documents.
  """

  rate: float
  spm_rate: float
  resets: bool

  special_tokens = MARKS

  def over(self, rows: Rows, tokenizer: Tokenizer) -> Rewritten:
    """Rewrite batches, which need the starts of documents."""
    rows = dataclasses.replace(rows, add_document_starts=True)
    return super().over(rows, tokenizer)

  def rewrite(
    self, batch: dict, keys_B: np.ndarray, tokenizer: Tokenizer
  ) -> dict:
    """Move the middle of some rows."""
    marks = [*map(tokenizer.special_token_id, MARKS), tokenizer.eos_id]
    text = _whole_rows(batch)
    rows = {name: array[:, : -len(marks)] for name, array in text.items()}
    low_B, high_B = _longest_documents(
      rows["document_starts"], rows["weights"] > 0
    )
    is_rewritten_B, is_spm_B, *splits = uniform(keys_B, 4).T
    is_rewritten_B = (is_rewritten_B < self.rate) & (high_B > low_B)
    splits = [
      low_B + (split * (high_B - low_B + 1)).astype(int) for split in splits
    ]

    begin_B1, *splits, end_B1 = np.sort([low_B, *splits, high_B], axis=0)[
      ..., None
    ]
    place_T = np.arange(rows["inputs"].shape[1])
    section_BT = np.full(rows["inputs"].shape, _BEFORE)
    for cut_B1, section in zip(
      (begin_B1, *splits, end_B1),
      (_PREFIX, _MIDDLE, _SUFFIX, _AFTER),
      strict=True,
    ):
      section_BT[place_T >= cut_B1] = section
    is_inside_BT = (section_BT != _BEFORE) & (section_BT != _AFTER)
    section_BT = _append(section_BT, _MARKED)
    rank_B9 = np.where(is_spm_B[:, None] < self.spm_rate, _SPM, _PSM)
    rank_BT = np.take_along_axis(rank_B9, section_BT, axis=1)
    order_BT = np.argsort(rank_BT, axis=1, kind="stable")

    # The state is reset at the first special token of a document that starts
    # here, and for the next document at the `<eos>` that ends the middle.
    first_B1 = np.take_along_axis(rows["document_starts"], begin_B1, axis=1)
    is_next_BT = rows["resets"] & is_inside_BT & (place_T != begin_B1)
    resets_BT = rows["resets"] & ~is_inside_BT
    moved = dict(
      inputs=_append(rows["inputs"], marks),
      weights=_append(rows["weights"], [0, 0, 0, 1]),
      resets=_append(resets_BT, [False] * len(marks)),
    )
    moved["resets"][:, -len(marks)] = first_B1[:, 0]
    moved["resets"][:, -1] = is_next_BT.any(axis=1)
    for name, array in moved.items():
      array = np.take_along_axis(array, order_BT, axis=1)
      text[name] = np.where(is_rewritten_B[:, None], array, text[name])
    new = dict(
      inputs=text["inputs"][:, :-1],
      targets=text["inputs"][:, 1:],
      weights=text["weights"][:, 1:],
    )
    return new | ({"resets": text["resets"][:, :-1]} if self.resets else {})


def _whole_rows(batch: dict) -> dict:
  """Put inputs and targets together again: [B, T + 1] each."""
  first_B1 = batch["weights"][:, :1]
  return dict(
    inputs=np.concatenate([batch["inputs"], batch["targets"][:, -1:]], axis=1),
    weights=np.concatenate([first_B1, batch["weights"]], axis=1),
    document_starts=np.concatenate(
      [batch["document_starts"], first_B1 < 0], axis=1
    ),
    resets=np.concatenate(
      [batch.get("resets", batch["document_starts"]), first_B1 < 0], axis=1
    ),
  )


def _longest_documents(
  starts_BT: np.ndarray, is_real_BT: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Find the longest piece of one document in each row.

  _longest_documents([[0, 1, 0, 0, 1]], [[1, 1, 1, 1, 1]]) → [1], [4]
  """
  place_T = np.arange(starts_BT.shape[1])
  first_BT = np.maximum.accumulate(np.where(starts_BT, place_T, 0), axis=1)
  length_BT = np.where(is_real_BT, place_T - first_BT + 1, 0)
  last_B1 = np.argmax(length_BT, axis=1)[:, None]
  low_B = np.take_along_axis(first_BT, last_B1, axis=1)[:, 0]
  return low_B, low_B + np.max(length_BT, axis=1)


def _append(array_BT: np.ndarray, values: list) -> np.ndarray:
  """Append the same values to every row."""
  block = np.broadcast_to(
    np.array(values, array_BT.dtype), (len(array_BT), len(values))
  )
  return np.concatenate([array_BT, block], axis=1)


def build(config: ConfigDict) -> FillInTheMiddle:
  """Make the objective that a config describes.

  Raises:
    UsageError: if a row has no room for the special tokens and one token.
  """
  objective, data = config.objective, config.data
  needed = len(MARKS) + 1
  if data.seq_len < needed:
    raise UsageError(
      f"data.seq_len={data.seq_len} must be at least {needed} for "
      f"task=fill_in_the_middle, whose special tokens take {needed} of them."
    )
  return FillInTheMiddle(
    data.seq_len,
    objective.fim_rate,
    objective.spm_rate,
    data.reset_at_documents,
  )
