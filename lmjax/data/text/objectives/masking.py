# SPDX-License-Identifier: Apache-2.0
"""Masked language modeling: predict hidden tokens from both sides."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.shuffle import uniform
from lmjax.data.text.objectives.objective import Objective
from lmjax.data.tokenizers import MASK, Tokenizer

MASKED, RANDOM = 0.8, 0.1  # of the chosen tokens; the rest stay as they are


@dataclasses.dataclass(frozen=True)
class Masking(Objective):
  """Select tokens to predict, and hide most of them (Devlin et al. 2019).

  Each token is selected with probability `rate` (arXiv:1810.04805). Of the
  selected ones 80 % become `<mask>`, 10 % a random token of the vocabulary, and
  10 % are unchanged. `<pad>`, `<bos>` and `<eos>` are neither selected nor
  inserted. Targets are the original tokens, with weight 1 where selected.

  With tokens 4 to 9 for text and 10 for `<mask>`, where positions 1, 4 and 5
  were selected and 5 is unchanged:

      inputs   4  5  6  7  8  9      →    4 10  6  7 10  9
      targets  5  6  7  8  9  4      →    4  5  6  7  8  9
      weights  1  1  1  1  1  1      →    0  1  0  0  1  1

  Attributes:
    rate: fraction of tokens that are selected.
    whole_words: whether words are selected as a whole: runs of characters
      or bytes between white space; of BPE, pieces as the tokenizer splits text
      before it merges: runs of letters, of digits or of other characters.
  """

  rate: float
  whole_words: bool

  special_tokens = (MASK,)

  def rewrite(
    self, batch: dict, keys_B: np.ndarray, tokenizer: Tokenizer
  ) -> dict:
    """Hide tokens of every row."""
    tokens_BT = batch["inputs"]
    selection, kind, other = uniform(keys_B, 3, tokens_BT.shape[1]).swapaxes(
      0, 1
    )
    if self.whole_words:
      firsts_BT = word_starts(tokens_BT, tokenizer.edge_classes)
      selection = np.take_along_axis(selection, firsts_BT, axis=1)
    never = tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id
    is_text_BT = ~np.isin(tokens_BT, never)
    is_text_BT &= batch.get("mask", True)
    selected_BT = is_text_BT & (selection < self.rate)
    text_ids = tokenizer.text_ids
    random_BT = text_ids[(other * len(text_ids)).astype(np.int32)]
    hidden_BT = np.where(kind < RANDOM, random_BT, tokens_BT)
    hidden_BT[kind >= 1 - MASKED] = tokenizer.mask_id
    return dict(
      batch,
      inputs=np.where(selected_BT, hidden_BT, tokens_BT),
      targets=tokens_BT,
      weights=selected_BT.astype(np.float32),
    )


def word_starts(tokens_BT: np.ndarray, edges_V2: np.ndarray) -> np.ndarray:
  """Return the index of the first token of each token's word, int64 [B, T].

  Where the pieces of a tokenizer are "new", "er", " cell", "s", ".":

      word_starts([[0, 1, 2, 3, 4]], [[1, 1], [1, 1], [0, 1], [1, 1], [3, 3]])
      → [[0, 0, 2, 2, 4]]
  """
  first_BT, last_BT = edges_V2[tokens_BT, 0], edges_V2[tokens_BT, 1]
  starts_BT = np.ones(tokens_BT.shape, bool)
  starts_BT[:, 1:] = (first_BT[:, 1:] == 0) | (
    first_BT[:, 1:] != last_BT[:, :-1]
  )
  index_T = np.arange(tokens_BT.shape[1])
  return np.maximum.accumulate(np.where(starts_BT, index_T, 0), axis=1)


def build(config: ConfigDict) -> Masking:
  """Make the objective that a config describes."""
  objective = config.objective
  return Masking(
    config.data.seq_len, objective.mask_rate, objective.whole_words
  )
