# SPDX-License-Identifier: Apache-2.0
"""What turns a task's outputs into something to read, and judges it."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from lmjax.data.records.schemas.schema import Row
from lmjax.data.vocabularies import Vocabularies

Outputs = Mapping[str, np.ndarray]  # of one row, what Task.predict returns


class Prediction(Protocol):
  """Outputs to words, and words to figures.

  Attributes:
    vocabularies: what the fields are written in.
  """

  vocabularies: Vocabularies

  def render(self, outputs: Outputs, row: Row) -> dict[str, Any]:
    """Say what is predicted of a row, as JSON has it.

    Args:
      outputs: of the row; axes of time are still padded.
      row: its texts by role.
    """

  def judge(
    self, pairs: Iterable[tuple[dict[str, Any], Row]]
  ) -> dict[str, float]:
    """Compute what is no mean over rows, of predictions and rows.

    Figures that are means come from the task's sums, and are not here again.
    """
