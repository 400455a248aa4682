# SPDX-License-Identifier: Apache-2.0
"""Predicting one text from another."""

import dataclasses

import flax.linen as nn

from lmjax.tasks.language_modeling import LanguageModeling, report_tokens
from lmjax.types import Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Seq2Seq(LanguageModeling):
  """Predict each target from the sources and the targets before it.

  Batches have the fields `sources` and `source_mask` beside those of language
  modelling; the model turns them into a memory by its method `encode`.
  """

  @staticmethod
  def read(
    model: nn.Module, batch: Batch, carry: PyTree
  ) -> tuple[PyTree, PyTree]:
    """Read the sources, then the inputs with them in mind."""
    memory = model.encode(batch["sources"], batch["source_mask"])
    return model(batch["inputs"], carry, memory=memory)

  def report(self, means: dict[str, float]) -> dict[str, float]:
    """Name what users read, of the targets.

    No bits of a character or byte: targets hold marks, which are no text.
    """
    return report_tokens(means)
