# SPDX-License-Identifier: Apache-2.0
"""Measure speed and memory as ratios of interleaved measurements.

    python scripts/benchmark.py WORD [--case=REGEX] [--json=FILE] ...

lstm, transformer: train steps against PyTorch and Flax
decode: generated text against transformers and PyTorch
data: the loader against the step that it feeds (see --config)
startup: train.py to the end of its first step, against PyTorch
memory: the loss whose logits are never stored, against the plain one
compile: 24 layers against 6
growth: the train step against the length of a row and the size of a batch
families: the train step of every family's character config (FAMILIES)
all: all of them
table: no measurement; the rows of --json=FILE as Markdown

Every contender runs in its own process, and one runs while the others wait.
PyTorch and transformers are optional (scripts/requirements-peers.txt); they
may be in another environment, whose interpreter --peer_python names.
"""

import json
import re
import shutil
import signal
import sys
from pathlib import Path

from absl import flags
from benchmarks.cases import LIBRARIES, Case, all_cases
from benchmarks.measure import Settings, measure
from benchmarks.processes import ContenderFailed
from benchmarks.tables import make_table
from ml_collections import config_flags

from lmjax.cli import app
from lmjax.config.compatibility import to_json
from lmjax.config.files import load_neighbor
from lmjax.config.finalize import finalize
from lmjax.errors import UsageError

WORDS = (
  "lstm",
  "transformer",
  "decode",
  "data",
  "startup",
  "memory",
  "compile",
  "growth",
  "families",
)
FAMILIES = (  # configs of one budget; all are compared with the first
  "char_transformer",
  "char_rnn",
  "char_gru",
  "char_lstm",
  "char_min_lstm",
  "char_rg_lru",
  "char_mlstm",
  "char_gated_convolution",
)

_QUICKSTART = str(Path(__file__).parent.parent / "configs" / "quickstart.py")
_CONFIG = config_flags.DEFINE_config_file(
  "config",
  _QUICKSTART,
  "Config whose loader `data` measures.",
)
_PEERS = flags.DEFINE_list(
  "peers", list(LIBRARIES), "Libraries to compare with."
)
_PEER_PYTHON = flags.DEFINE_string(
  "peer_python", sys.executable, "Interpreter of PyTorch and transformers."
)
_DTYPE = flags.DEFINE_enum(
  "dtype", "both", ["float32", "bfloat16", "both"], "Dtype of the matmuls."
)
_CASE = flags.DEFINE_string(
  "case", "", "Regular expression that the names of cases must match."
)
_REPEATS = flags.DEFINE_integer(
  "repeats", 15, "Measurements per contender.", lower_bound=1
)
_SAME_ALLOCATOR = flags.DEFINE_bool(
  "same_allocator", True, "Run peers also with lmjax's allocator settings."
)
_JSON = flags.DEFINE_string(
  "json", None, "File of the report; its other rows are retained."
)


def say(line: str) -> None:
  """Print progress."""
  print(line, file=sys.stderr, flush=True)


def choose_cases(word: str) -> list[Case]:
  """Return the cases that the command line selects.

  Raises:
    UsageError: if it asks for what does not exist.
  """
  if word not in (*WORDS, "all"):
    words = ", ".join((*WORDS, "all", "table"))
    raise UsageError(f"say what to measure, or table: one of {words}.")
  try:
    pattern = re.compile(_CASE.value)
  except re.error:
    raise UsageError(
      f"--case={_CASE.value} is not a valid regular expression."
    ) from None
  dtypes = ("float32", "bfloat16", "")
  if _DTYPE.value != "both":
    dtypes = (_DTYPE.value, "")
  cases = [
    case
    for case in all_cases(to_json(finalize(_CONFIG.value)), load_families())
    if word in (case.word, "all")
    and pattern.search(case.name)
    and case.dtype in dtypes
  ]
  if not cases:
    raise UsageError(
      f"no case of {word} has --dtype={_DTYPE.value} and a name that matches "
      f"--case={_CASE.value}."
    )
  return cases


def load_families() -> dict[str, str]:
  """Load the configs that `families` compares, as JSON."""
  modules = {
    name: load_neighbor(_QUICKSTART, f"{name}.py") for name in FAMILIES
  }
  return {
    name: to_json(finalize(module.get_config()))
    for name, module in modules.items()
  }


def choose_settings() -> Settings:
  """Read the settings of the measurement.

  Raises:
    UsageError: if there is no such peer or interpreter.
  """
  for peer in _PEERS.value:
    if peer not in LIBRARIES:
      raise UsageError(
        f"--peers={peer} is not known; choose from {', '.join(LIBRARIES)}."
      )
  if not shutil.which(_PEER_PYTHON.value):
    raise UsageError(
      f"--peer_python={_PEER_PYTHON.value} is no program; give the path of a "
      "Python interpreter."
    )
  return Settings(
    tuple(_PEERS.value),
    _PEER_PYTHON.value,
    _REPEATS.value,
    _SAME_ALLOCATOR.value,
  )


def read_report(path: Path) -> dict[str, dict]:
  """Read the rows of a report.

  Raises:
    UsageError: if the file is none.
  """
  try:
    report = json.loads(path.read_text())
    make_table(report)
  except (ValueError, KeyError, TypeError, AttributeError):
    raise UsageError(
      f"--json={path} is no report of scripts/benchmark.py."
    ) from None
  return report


def write_report(path: Path | None, report: dict[str, dict]) -> None:
  """Write the rows, if they are wanted in a file."""
  if path:
    path.write_text(json.dumps(report, indent=2) + "\n")


def has_gpu() -> bool:
  """Say whether there is a GPU, without starting JAX in this process."""
  return any(Path("/dev").glob("nvidia[0-9]*"))


def print_table(path: Path | None) -> None:
  """Print a report as Markdown.

  Raises:
    UsageError: if there is none.
  """
  if not path:
    raise UsageError("name the report to make a table of by --json=FILE.")
  print(make_table(read_report(path)), end="")


def main() -> int:
  """Measure, and print the report as JSON and as a table."""
  path = _JSON.value and Path(_JSON.value)
  if _WORD == "table":
    print_table(path)
    return 0
  cases, settings = choose_cases(_WORD), choose_settings()
  report = read_report(path) if path and path.exists() else {}
  write_report(path, report)  # what cannot be written shows at once
  measured, exit_code = {}, 0
  for case in cases:
    say(f"\n{case.name}: {case.work}")
    if case.needs_gpu and not has_gpu():
      say("left out: it needs a GPU")
      continue
    try:
      rows = measure(case, settings, say)
    except ContenderFailed as error:
      say(f"not measured: {error}")
      exit_code = 1
      continue
    measured |= {
      name: {**row, "command": _COMMAND} for name, row in rows.items()
    }
    write_report(path, report | measured)
    if not all(row.get("agree", True) for row in rows.values()):
      exit_code = 1
  say("\n" + make_table(measured))
  print(json.dumps(measured, indent=2))
  return exit_code


if __name__ == "__main__":
  # Contenders are ended with this process.
  signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
  _COMMAND = list(sys.argv)
  _WORD = sys.argv.pop(1) if len(sys.argv) > 1 else ""
  app.run(main)
