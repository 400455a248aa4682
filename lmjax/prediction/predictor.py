# SPDX-License-Identifier: Apache-2.0
"""Predictions for records, batch by batch."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax.data.records.encoded import Encoded
from lmjax.data.records.record_corpus import RecordCorpus, Report
from lmjax.data.records.schemas.schema import Example, Row
from lmjax.data.records.tables.table import Problem, Record
from lmjax.errors import UserError
from lmjax.prediction.renderer import Renderer
from lmjax.types import PyTree

# Smallest padded length. Padded lengths are powers of two, so that the number
# of compiled shapes grows only with the logarithm of the longest text.
SHORTEST = 8


class _Pending(NamedTuple):
  """Consecutive rows with equal inputs, which are predicted once.

  Several references of one source are such rows.
  """

  inputs: Row
  rows: list[Row]
  example: Example


class Predictor:
  """Predict records, batch by batch.

  Args:
    task: a task on records; it has `predict`.
    corpus: encodes records.
    renderer: turns outputs into JSON.
    batch_size: rows that are read before any of them is predicted.
  """

  def __init__(
    self, task: Any, corpus: RecordCorpus, renderer: Renderer, batch_size: int
  ):
    self._corpus, self._renderer = corpus, renderer
    self._batch_size = batch_size
    self._predict = jax.jit(task.predict)

  def __call__(
    self,
    variables: PyTree,
    rows: Iterable[tuple[str, Row]],
    report: Report | None = None,
  ) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Predict rows, in their order.

    Args:
      variables: the model's variables.
      rows: the place of each row, such as "file.tsv:3", and its texts by role.
        Roles that the model does not read are ignored.
      report: is called with malformed rows, which are skipped; None to raise
        an error unless data.malformed=skip.

    Yields:
      Each row and its prediction as JSON.

    Raises:
      UserError: for a malformed row.
    """
    pending = []
    for where, row in rows:
      roles = self._corpus.schema.inputs
      inputs = {role: row[role] for role in roles if role in row}
      example = self._corpus.encode(where, inputs, report)
      if example is None:
        continue
      if pending and pending[-1].inputs == inputs:
        pending[-1].rows.append(row)
      else:
        example, _ = self._corpus.truncate(example)
        pending.append(_Pending(inputs, [row], example))
      if len(pending) == self._batch_size:
        yield from self._answer(variables, pending)
        pending = []
    if pending:
      yield from self._answer(variables, pending)

  def predict_records(
    self,
    variables: PyTree,
    records: Iterable[Record | Problem],
    columns: Mapping[str, str],
    report: Report,
  ) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Predict the records of a table; see `__call__`.

    Args:
      variables: variables of the model.
      records: the records, or why one could not be read.
      columns: role → column of the table.
      report: called with malformed records, which are skipped.
    """
    rows = self._corpus.select(records, tuple(columns), report)
    return self(variables, rows, report)

  def predict(
    self,
    variables: PyTree,
    rows: Iterable[Row],
    columns: Mapping[str, str],
  ) -> Iterator[dict[str, Any]]:
    """Predict rows given as texts by role.

    Args:
      variables: variables of the model.
      rows: texts by role; roles that the model does not read are ignored.
      columns: role → column of the table.

    Raises:
      UserError: naming a malformed row, counted from 1.
    """
    records = (
      Record(f"row {n}", {columns[k]: row[k] for k in row if k in columns})
      for n, row in enumerate(rows, 1)
    )
    for _, prediction in self.predict_records(
      variables, records, columns, _raise
    ):
      yield prediction

  def evaluate(
    self, pairs: Iterable[tuple[Row, dict[str, Any]]]
  ) -> dict[str, float]:
    """Return the metrics of predictions that are not means over rows."""
    return self._renderer.evaluate((made, row) for row, made in pairs)

  def _answer(
    self, variables: PyTree, pending: list[_Pending]
  ) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Predict pending rows as one padded batch."""
    schema = self._corpus.schema
    examples = [each.example for each in pending]
    # Labels and references are absent from `inputs`, so their fields are not
    # encoded; a group of which no field remains has no mask either.
    groups = {
      mask: tuple(field for field in fields if field in examples[0])
      for mask, fields in schema.groups.items()
    }
    groups = {mask: fields for mask, fields in groups.items() if fields}
    encoded = Encoded.of(examples, groups, schema.pads)
    widths = [_rounded(longest) for longest in encoded.lengths().max(axis=0)]
    rows_B = np.arange(self._batch_size)
    rows_B[len(pending) :] = -1  # padding rows: the batch size stays the same
    outputs = jax.device_get(
      self._predict(variables, encoded.batch(rows_B, widths))
    )
    for index, each in enumerate(pending):
      made = {name: values[index] for name, values in outputs.items()}
      for row in each.rows:
        yield row, self._renderer.render(made, row)


def _rounded(length: int) -> int:
  """Round a length up to a power of two, at least SHORTEST."""
  return max(SHORTEST, 1 << (int(length) - 1).bit_length())


def _raise(problem: Problem) -> None:
  raise UserError(f"{problem.where}: {problem.reason}; correct it.")
