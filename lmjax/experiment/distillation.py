# SPDX-License-Identifier: Apache-2.0
"""The logits of a teacher run, from which another run learns.

Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): a student learns
from the logits of a teacher, which show how similar classes are, in addition to
the labels. The logits are computed once and stored in the run directory: batch
i stays a pure function of (seed, i), and a run can be resumed without its
teacher.
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
  """A classifier whose logits are distilled.

  Attributes:
    corpus: encodes rows with the teacher's tokenizer; the teacher's own records
      are not read.
    task: computes logits.
    variables: the variables of its model.
    report: "workdir" and "step" of the run, stored in corpus.json.
  """

  corpus: RecordCorpus
  task: Classification
  variables: PyTree
  report: dict[str, Any]

  def check_labels(self, labels: tuple[str, ...]) -> None:
    """Check that teacher and student have equal labels, in the same order.

    Args:
      labels: those of the student.

    Raises:
      UserError: naming both.
    """
    if self.task.labels != labels:
      raise UserError(
        f"distill.workdir={self.report['workdir']} has the labels "
        f"{', '.join(self.task.labels)}, and this run has {', '.join(labels)}; "
        "choose a run with the same labels."
      )

  def scores(self, rows: Iterable[tuple[str, Row]]) -> np.ndarray:
    """Return the logits of rows, float32 [N, C].

    Args:
      rows: the place of each of N rows, and its texts by role.

    Raises:
      UserError: naming a row that the teacher cannot encode.
    """
    schema, examples = self.corpus.schema, []
    for where, row in rows:
      example = self.corpus.encode(where, row)
      if example is None:
        raise UserError(
          f"{where} cannot be encoded by the run in distill.workdir="
          f"{self.report['workdir']}; remove the record."
        )
      examples.append(self.corpus.truncate(example)[0])
    encoded = Encoded.of(examples, schema.groups, schema.pads)
    batches = Buckets(encoded, batch_size=64, num_buckets=8)
    score = jax.jit(self.task.scores)
    scores_NY = np.zeros((len(encoded), len(self.task.labels)), np.float32)
    for index in range(len(batches)):
      rows_B = batches.rows(index)
      scores_BY = jax.device_get(score(self.variables, batches[index]))
      # Buckets order rows by length, and pad a batch with rows numbered −1.
      scores_NY[rows_B[rows_B >= 0]] = scores_BY[rows_B >= 0]
    return scores_NY


def save_scores(path: Path, scores_NY: np.ndarray) -> None:
  """Write logits atomically: an interrupted process leaves no partial file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  # Every process computes and writes the logits; equal names would mix bytes.
  partial = path.with_suffix(f".{jax.process_index()}.partial")
  with partial.open("wb") as file:
    np.save(file, scores_NY)
  partial.replace(path)


def load_scores(path: Path) -> np.ndarray:
  """Read the logits that `save_scores` wrote.

  Raises:
    UserError: if the file does not exist or cannot be parsed.
  """
  try:
    return np.load(path)
  except (OSError, ValueError) as error:
    raise UserError(
      f"{path} cannot be read; restore the run's own file."
    ) from error
