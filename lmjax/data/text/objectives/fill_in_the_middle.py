# SPDX-License-Identifier: Apache-2.0
"""Fill in the middle: move the middle of a text to its end."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.shuffle import draws
from lmjax.data.text.batching import Rows
from lmjax.data.text.objectives.objective import Objective, Rewritten
from lmjax.data.tokenizers import EOS, Tokenizer
from lmjax.errors import UsageError

PREFIX, SUFFIX, MIDDLE = MARKS = ("<prefix>", "<suffix>", "<middle>")
# Where each section goes: what lies before it in the row, `<prefix>`, the
# prefix, `<suffix>`, the suffix, `<middle>`, the middle, `<eos>`, and what lies
# behind it.
_PSM = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8])
_SPM = np.array([0, 1, 5, 2, 3, 4, 6, 7, 8])
_BEFORE, _PREFIX, _SUFFIX, _MIDDLE, _BEHIND = 0, 2, 4, 6, 8
_MARKED = [1, 3, 5, 7]


@dataclasses.dataclass(frozen=True)
class FillInTheMiddle(Objective):
  """Move the middle of some rows to their ends (Bavarian et al. 2022).

  A row is rewritten with probability `rate` (arXiv:2207.14255, at the level of
  the context): in the longest piece of one document that it holds, two places
  are drawn evenly, and the three parts change places, prefix – suffix – middle
  (PSM) or, with probability `spm_rate`, suffix – prefix – middle (SPM, as the
  authors mix it with PSM). `<eos>` ends the middle. The marks push four tokens
  out of the row. Then it is next-token prediction as ever, but that the marks
  before `<eos>`, of which the text knows nothing, are not asked for. The cuts
  lie between tokens, not characters.

  With tokens 4 to 14 for text and P, S, M, E for the marks and `<eos>`, a row
  of 10 inputs that is cut behind 5 and 7:

      text          4  5  6  7  8  9 10 11 12 13 14
      PSM: inputs   P  4  5  S  8  9 10  M  6  7
           targets  4  5  S  8  9 10  M  6  7  E
           weights  1  1  0  1  1  1  0  1  1  1
      SPM: inputs   P  S  8  9 10  M  4  5  6  7
           targets  S  8  9 10  M  4  5  6  7  E
           weights  0  1  1  1  0  1  1  1  1  1

  Attributes:
    rate: share of the rows that is rewritten.
    spm_rate: share of these that is SPM.
    resets: whether memory is emptied where a document begins.
  """

  rate: float
  spm_rate: float
  resets: bool

  special_tokens = MARKS

  def over(self, rows: Rows, tokenizer: Tokenizer) -> Rewritten:
    """Rewrite the batches of `rows`, which must tell where documents begin."""
    rows = dataclasses.replace(rows, mark_documents=True)
    return super().over(rows, tokenizer)

  def rewrite(
    self, batch: dict, keys_B: np.ndarray, tokenizer: Tokenizer
  ) -> dict:
    """Move the middle of some rows."""
    marks = [*map(tokenizer.extra, MARKS), EOS]
    text = _whole_rows(batch)
    kept = {name: array[:, : -len(marks)] for name, array in text.items()}
    low_B, high_B = _longest_documents(kept["begins"], kept["weights"] > 0)
    is_chosen_B, is_spm_B, *cuts = draws(keys_B, 4).T
    is_chosen_B = (is_chosen_B < self.rate) & (high_B > low_B)
    cuts = [low_B + (cut * (high_B - low_B + 1)).astype(int) for cut in cuts]

    begin_B1, *cuts, end_B1 = np.sort([low_B, *cuts, high_B], axis=0)[..., None]
    place_T = np.arange(kept["inputs"].shape[1])
    section_BT = np.full(kept["inputs"].shape, _BEFORE)
    for cut_B1, section in zip(
      (begin_B1, *cuts, end_B1),
      (_PREFIX, _MIDDLE, _SUFFIX, _BEHIND),
      strict=True,
    ):
      section_BT[place_T >= cut_B1] = section
    is_inside_BT = (section_BT != _BEFORE) & (section_BT != _BEHIND)
    section_BT = _append(section_BT, _MARKED)
    rank_B9 = np.where(is_spm_B[:, None] < self.spm_rate, _SPM, _PSM)
    rank_BT = np.take_along_axis(rank_B9, section_BT, axis=1)
    order_BT = np.argsort(rank_BT, axis=1, kind="stable")

    # Memory is emptied at the first mark of a document that begins here, and
    # for the next one, if before its `<eos>`, at the one that ends the middle.
    first_B1 = np.take_along_axis(kept["begins"], begin_B1, axis=1)
    is_next_BT = kept["resets"] & is_inside_BT & (place_T != begin_B1)
    resets_BT = kept["resets"] & ~is_inside_BT
    moved = dict(
      inputs=_append(kept["inputs"], marks),
      weights=_append(kept["weights"], [0, 0, 0, 1]),
      resets=_append(resets_BT, [False] * len(marks)),
    )
    moved["resets"][:, -len(marks)] = first_B1[:, 0]
    moved["resets"][:, -1] = is_next_BT.any(axis=1)
    for name, array in moved.items():
      array = np.take_along_axis(array, order_BT, axis=1)
      text[name] = np.where(is_chosen_B[:, None], array, text[name])
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
    begins=np.concatenate([batch["begins"], first_B1 < 0], axis=1),
    resets=np.concatenate(
      [batch.get("resets", batch["begins"]), first_B1 < 0], axis=1
    ),
  )


def _longest_documents(
  begins_BT: np.ndarray, is_real_BT: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Find the longest piece of one document in each row.

  _longest_documents([[0, 1, 0, 0, 1]], [[1, 1, 1, 1, 1]]) → [1], [4]
  """
  place_T = np.arange(begins_BT.shape[1])
  first_BT = np.maximum.accumulate(np.where(begins_BT, place_T, 0), axis=1)
  length_BT = np.where(is_real_BT, place_T - first_BT + 1, 0)
  last_B1 = np.argmax(length_BT, axis=1)[:, None]
  low_B = np.take_along_axis(first_BT, last_B1, axis=1)[:, 0]
  return low_B, low_B + np.max(length_BT, axis=1)


def _append(array_BT: np.ndarray, values: list) -> np.ndarray:
  """Put the same values behind every row."""
  block = np.broadcast_to(
    np.array(values, array_BT.dtype), (len(array_BT), len(values))
  )
  return np.concatenate([array_BT, block], axis=1)


def build(config: ConfigDict) -> FillInTheMiddle:
  """Make the objective that a config describes.

  Raises:
    UsageError: if a window has no room for the marks and a token.
  """
  objective, data = config.objective, config.data
  needed = len(MARKS) + 1
  if data.seq_len < needed:
    raise UsageError(
      f"data.seq_len={data.seq_len} must be at least {needed} for "
      f"task=fill_in_the_middle, whose marks take {needed} tokens of a row."
    )
  return FillInTheMiddle(
    data.seq_len,
    objective.fim_rate,
    objective.spm_rate,
    data.reset_at_documents,
  )
