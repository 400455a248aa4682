# SPDX-License-Identifier: Apache-2.0
"""From rows to predictions, batch by batch, with a task that has learned."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax.data.records.encoded import Encoded
from lmjax.data.records.record_corpus import Report
from lmjax.data.records.schemas.schema import Example, Row
from lmjax.experiment.experiment import Experiment
from lmjax.types import PyTree

SHORTEST = 8  # length that batches have at least; they grow by doubling


class _Waiting(NamedTuple):
  """Rows that will be answered alike: a model sees no difference."""

  seen: Row
  rows: list[Row]
  example: Example


class Predictor:
  """Predict what a run has learned to.

  Args:
    experiment: the run; its task has `predict`.
    batch_size: rows that are read before any is answered; 0 for the config's.
  """

  def __init__(self, experiment: Experiment, batch_size: int = 0):
    self._corpus = experiment.corpus
    self._prediction = experiment.prediction
    self._batch_size = batch_size or experiment.config.data.batch_size
    self._predict = jax.jit(experiment.task.predict)

  def __call__(
    self,
    variables: PyTree,
    rows: Iterable[tuple[str, Row]],
    report: Report | None = None,
  ) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Predict row by row, in their order.

    Neighbours that a model sees no difference between are predicted once.

    Args:
      variables: the model's variables.
      rows: where each is, and its texts by role; what the model does not see is
        not looked at.
      report: what is told of malformed rows, which are left out; None for what
        refuses them unless data.malformed=skip.

    Raises:
      UserError: by `report`.
    """
    waiting = []
    for where, row in rows:
      inputs = self._corpus.schema.inputs
      seen = {role: row[role] for role in inputs if role in row}
      example = self._corpus.encode(where, seen, report)
      if example is None:
        continue
      if waiting and waiting[-1].seen == seen:
        waiting[-1].rows.append(row)
      else:
        example, _ = self._corpus.cut(example)
        waiting.append(_Waiting(seen, [row], example))
      if len(waiting) == self._batch_size:
        yield from self._answer(variables, waiting)
        waiting = []
    if waiting:
      yield from self._answer(variables, waiting)

  def judge(
    self, pairs: Iterable[tuple[Row, dict[str, Any]]]
  ) -> dict[str, float]:
    """Compute the figures of predictions that are no means over rows."""
    return self._prediction.judge((made, row) for row, made in pairs)

  def _answer(
    self, variables: PyTree, waiting: list[_Waiting]
  ) -> Iterator[tuple[Row, dict[str, Any]]]:
    schema = self._corpus.schema
    examples = [each.example for each in waiting]
    groups = {
      mask: tuple(field for field in fields if field in examples[0])
      for mask, fields in schema.groups.items()
    }
    groups = {mask: fields for mask, fields in groups.items() if fields}
    encoded = Encoded.of(examples, groups, schema.pads)
    widths = [_rounded(longest) for longest in encoded.lengths().max(axis=0)]
    rows_B = np.arange(self._batch_size)
    rows_B[len(waiting) :] = -1
    outputs = jax.device_get(
      self._predict(variables, encoded.batch(rows_B, widths))
    )
    for index, each in enumerate(waiting):
      made = {name: values[index] for name, values in outputs.items()}
      for row in each.rows:
        yield row, self._prediction.render(made, row)


def _rounded(length: int) -> int:
  """Round up, so that few shapes are compiled."""
  return max(SHORTEST, 1 << (int(length) - 1).bit_length())
