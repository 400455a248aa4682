# SPDX-License-Identifier: Apache-2.0
"""Predict records with a run; prints one line per record.

python scripts/predict.py --workdir=runs/a --input=reviews.txt
echo "what a film" | python scripts/predict.py --workdir=runs/a

Each has what was read, by role, and what is predicted of it, in the order of
the input. Records are read as they come, and answered a batch at a time.
"""

import sys

from absl import flags
from ml_collections import ConfigDict

from lmjax import strict_json
from lmjax.data.records.tables.requests import (
  FORMATS,
  PLAIN,
  STDIN,
  read_requests,
)
from lmjax.data.records.tables.table import Problem
from lmjax.errors import UserError
from lmjax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_INPUT = flags.DEFINE_string("input", STDIN, "A file; -: standard input.")
_FORMAT = flags.DEFINE_enum(
  "format",
  None,
  FORMATS,
  f"How records are written; {PLAIN}: a text a line, or several between tabs. "
  "By the file's name if not given.",
)
_HEADER = flags.DEFINE_boolean(
  "header",
  None,
  "tsv, csv: Whether the first line names the columns; as in training if not "
  "given.",
)
_COLUMNS = flags.DEFINE_list(
  "columns",
  [],
  "Where texts are if not in the columns of the training data: role=column,...",
)
_MALFORMED = flags.DEFINE_enum(
  "malformed",
  "error",
  ["error", "skip"],
  "What to do with malformed records.",
)
_OUTPUT = flags.DEFINE_enum(
  "output",
  "jsonl",
  ["jsonl", "tsv"],
  "jsonl: an object a record; tsv: its values between tabs, under their names.",
)
_BATCH_SIZE = flags.DEFINE_integer(
  "batch_size", 0, "Records answered together; 0: as in training.", 0
)
flags.mark_flag_as_required("workdir")


def report(problem: Problem) -> None:
  """Refuse a malformed record, or tell that it is left out."""
  about = f"{problem.where}: {problem.reason}"
  if _MALFORMED.value == "error":
    raise UserError(f"{about}; correct the record or give --malformed=skip.")
  print(f"skipped {about}", file=sys.stderr)


def cell(value: object) -> str:
  """Write a value between tabs: a text without tabs as it is, else JSON."""
  if isinstance(value, str) and not {"\t", "\n"} & set(value):
    return value
  return strict_json.dumps(value, ensure_ascii=False)


def main() -> None:
  """Print what is predicted, a line a record."""
  overrides = {}
  for pair in _COLUMNS.value:
    role, _, column = pair.partition("=")
    overrides[f"data.columns.{role}"] = column
  run = Run(_WORKDIR.value, _CHECKPOINT.value, overrides)
  columns = run.input_columns
  data = ConfigDict(run.experiment.config.data.to_dict())
  if _HEADER.value is not None:
    data.header = _HEADER.value
  records = read_requests(
    _INPUT.value, _FORMAT.value, data, list(columns.values())
  )
  answers = run.predictor(_BATCH_SIZE.value).predict_records(
    run.variables, records, columns, report
  )
  for number, (row, prediction) in enumerate(answers):
    answer = {**row, **prediction}
    if _OUTPUT.value == "jsonl":
      print(strict_json.dumps(answer, ensure_ascii=False), flush=True)
      continue
    if number == 0:
      print(*answer, sep="\t")
    print(*map(cell, answer.values()), sep="\t", flush=True)
