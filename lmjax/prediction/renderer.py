# SPDX-License-Identifier: Apache-2.0
"""The protocol of renderers: outputs of a task → predictions and metrics."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from lmjax.data.records.schemas.schema import Row
from lmjax.data.vocabularies import Vocabularies
from lmjax.metrics.metric import Directions

Outputs = Mapping[str, np.ndarray]  # of one row, as Task.predict returns them


class Renderer(Protocol):
  """Turns the outputs for a row into a prediction, and evaluates predictions.

  Attributes:
    vocabularies: tokenizers and labels of the fields.
    directions: metric name → whether higher is better, for every metric of
      `evaluate`.
  """

  vocabularies: Vocabularies
  directions: Directions

  def render(self, outputs: Outputs, row: Row) -> dict[str, Any]:
    """Return the prediction for a row, as JSON.

    Args:
      outputs: outputs for the row; time axes are padded.
      row: the texts of the row by role.
    """

  def evaluate(
    self, pairs: Iterable[tuple[dict[str, Any], Row]]
  ) -> dict[str, float]:
    """Return the metrics that are not means over rows.

    Metrics that are means come from the sums of the task and are not repeated
    here.

    Args:
      pairs: predictions and their rows.

    Returns:
      The metrics by name; empty if the task has none.
    """
