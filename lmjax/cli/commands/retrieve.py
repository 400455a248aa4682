# SPDX-License-Identifier: Apache-2.0
"""Search texts with a query; prints one JSON line per query.

python scripts/retrieve.py --workdir=runs/a --query="sort a list" --number=5
"""

from absl import flags

from lmjax import strict_json
from lmjax.data.records.tables.requests import open_lines
from lmjax.data.records.tables.table import Problem
from lmjax.data.sources.splits import SPLITS
from lmjax.errors import UserError, check_positive
from lmjax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or N.")
_QUERY = flags.DEFINE_multi_string(
  "query", None, "A text to find others for; may be given again and again."
)
_SPLIT = flags.DEFINE_enum(
  "split", "test", SPLITS, "The split whose second texts may be found."
)
_INDEX = flags.DEFINE_string(
  "index", None, "A file whose lines may be found instead, plain or .gz, .xz."
)
_NUMBER = flags.DEFINE_integer("number", 5, "How many to find.")
flags.mark_flags_as_required(["workdir", "query"])


def main() -> None:
  """Print what is found for each query."""
  check_positive(number=_NUMBER.value)
  run = Run(_WORKDIR.value, _CHECKPOINT.value)
  texts = None
  if _INDEX.value is not None:
    texts = []
    for line in open_lines(_INDEX.value):
      if isinstance(line, Problem):
        raise UserError(f"{line.where}: {line.reason}; correct the line.")
      if line.text.strip():
        texts.append(line.text)
  retriever = run.retriever(texts, _SPLIT.value)
  found = retriever(_QUERY.value, _NUMBER.value)
  for query, hits in zip(_QUERY.value, found, strict=True):
    found_here = [hit._asdict() for hit in hits]
    print(strict_json.dumps(dict(query=query, found=found_here)))
