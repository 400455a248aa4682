# SPDX-License-Identifier: Apache-2.0
"""Masked language modeling (Devlin et al. 2019, arXiv:1810.04805)."""

import dataclasses

import flax.linen as nn

from lmjax.tasks.language_modeling import LanguageModeling, report_tokens
from lmjax.types import Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedLM(LanguageModeling):
  """Predict the tokens that were chosen, from both sides.

  The batches of data/objectives/masking.py weigh these positions alone, and
  have as targets what stood there. Nothing is seen where a field `mask` is
  false.
  """

  @staticmethod
  def read(
    model: nn.Module, batch: Batch, carry: PyTree
  ) -> tuple[PyTree, PyTree]:
    """Read both sides of every place."""
    return model(
      batch["inputs"], carry, batch.get("resets"), mask_BT=batch.get("mask")
    )

  def report(self, means: dict[str, float]) -> dict[str, float]:
    """Name what users read, of the chosen tokens alone.

    No bits of a character or byte: tokens that are predicted one by one, each
    with others beside it, do not add up to the probability of a text.
    """
    return report_tokens(means)
