# SPDX-License-Identifier: Apache-2.0
"""What a run says of the rows that another one learns from.

Hinton et al. 2015 (arXiv:1503.02531): a small model learns from the scores of a
large one, which tell how alike classes are, beside the labels. The scores are
made once and kept in the run directory, so that batches stay functions of their
number and the other run need not be there when this one goes on.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lmjax.data.records.buckets import Buckets
from lmjax.data.records.encoded import Encoded
from lmjax.data.records.record_corpus import RecordCorpus
from lmjax.data.records.schemas.schema import Row
from lmjax.errors import UserError
from lmjax.tasks.classification import Classification
from lmjax.types import PyTree


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A run that has learned to tell classes apart.

  Attributes:
    corpus: encodes rows; the run's own records are not read.
    task: scores them.
    variables: what it has learned.
    report: "workdir" and "step" of the run.
  """

  corpus: RecordCorpus
  task: Classification
  variables: PyTree
  report: dict[str, Any]

  def check_labels(self, labels: tuple[str, ...]) -> None:
    """See that it tells the same classes apart as the run that learns.

    Raises:
      UserError: naming both.
    """
    if self.task.labels != labels:
      raise UserError(
        f"distill.workdir={self.report['workdir']} has the labels "
        f"{', '.join(self.task.labels)}, and here are {', '.join(labels)}; "
        "give a run of the same labels."
      )

  def scores(self, rows: Iterable[tuple[str, Row]]) -> np.ndarray:
    """Score the classes of rows, float32 [N, C].

    Args:
      rows: where each is, and its texts by role.

    Raises:
      UserError: naming a row that it cannot read.
    """
    schema, examples = self.corpus.schema, []
    for where, row in rows:
      example = self.corpus.encode(where, row)
      if example is None:
        raise UserError(
          f"{where} cannot be read by the run in distill.workdir="
          f"{self.report['workdir']}; leave the record out."
        )
      examples.append(self.corpus.cut(example)[0])
    encoded = Encoded.of(examples, schema.groups, schema.pads)
    batches = Buckets(encoded, batch_size=64, num_buckets=8)
    score = jax.jit(self.task.scores)
    scores_NC = np.zeros((len(encoded), len(self.task.labels)), np.float32)
    for index in range(len(batches)):
      rows_B = batches.rows(index)
      scores_BC = jax.device_get(score(self.variables, batches[index]))
      scores_NC[rows_B[rows_B >= 0]] = scores_BC[rows_B >= 0]
    return scores_NC


def save_scores(path: Path, scores_NC: np.ndarray) -> None:
  """Write scores to a file that is there whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_suffix(f".{jax.process_index()}.partial")
  with partial.open("wb") as file:
    np.save(file, scores_NC)
  partial.replace(path)


def load_scores(path: Path) -> np.ndarray:
  """Read what `save_scores` wrote.

  Raises:
    UserError: if the file is not there or broken.
  """
  try:
    return np.load(path)
  except (OSError, ValueError) as error:
    raise UserError(
      f"{path} cannot be read; restore the run's own file."
    ) from error
