# SPDX-License-Identifier: Apache-2.0
"""Write the n-gram model of a run as an ARPA file.

python scripts/export_arpa.py --workdir=runs/ngram --output=model.arpa.gz
"""

from pathlib import Path

from absl import flags

from lmjax.errors import UsageError
from lmjax.models.ngram import levels_of
from lmjax.ngrams import arpa
from lmjax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
_OUTPUT = flags.DEFINE_string("output", None, "The file; .gz compresses it.")
flags.mark_flags_as_required(["workdir", "output"])


def main() -> None:
  """Write the tables."""
  output = Path(_OUTPUT.value)
  if output.exists():
    raise UsageError(f"--output={output} is there already; name a new file.")
  run = Run(_WORKDIR.value)
  name = run.experiment.config.model.name
  if name != "ngram":
    raise UsageError(
      f"{_WORKDIR.value} holds a model.name={name}; only an ngram has tables "
      "that an ARPA file can hold."
    )
  arpa.write(output, levels_of(run.variables), run.tokenizer.names())
  print(f"wrote {output}")
