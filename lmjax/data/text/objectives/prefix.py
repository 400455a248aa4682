# SPDX-License-Identifier: Apache-2.0
"""Prefix language modeling: continue a prefix with bidirectional attention."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.shuffle import uniform
from lmjax.data.text.objectives.objective import Objective
from lmjax.data.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Prefix(Objective):
  """Read a random prefix of each row at once, and predict the rest.

  (Liu et al. 2018; Raffel et al. 2020, arXiv:1910.10683, 3.2.) The prefix has
  from 1 to T tokens, evenly; what follows it counts, and `bidirectional` is
  true on it. With a prefix of 3 of 6 tokens:

      inputs         4  5  6  7  8  9
      targets        5  6  7  8  9  4
      weights        0  0  1  1  1  1
      bidirectional  1  1  1  0  0  0
  """

  def rewrite(
    self, batch: dict, keys_B: np.ndarray, tokenizer: Tokenizer
  ) -> dict:
    """Mark a prefix of every row."""
    del tokenizer
    time = batch["inputs"].shape[1]
    length_B1 = 1 + (uniform(keys_B, 1) * time).astype(np.int64)
    place_T = np.arange(time)
    counts_BT = place_T >= length_B1 - 1
    return dict(
      batch,
      weights=batch["weights"] * counts_BT.astype(np.float32),
      bidirectional=place_T < length_B1,
    )


def build(config: ConfigDict) -> Prefix:
  """Make the objective that a config describes."""
  return Prefix(config.data.seq_len)
