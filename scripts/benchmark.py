# SPDX-License-Identifier: Apache-2.0
"""Measure speed, as ratios of figures taken in turns in one run.

    python scripts/benchmark.py data --config=configs/quickstart.py

data: batches per second that the loader delivers, against those that the
      compiled train step of the same config consumes.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from lmjax import command_line
from lmjax.config import finalize
from lmjax.data.loader import load
from lmjax.errors import UsageError
from lmjax.experiment import Experiment
from lmjax.run_folder import RunFolder, describe_environment
from lmjax.training.loop import compile_train_step, make_strategy

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  str(Path(__file__).parent.parent / "configs" / "quickstart.py"),
  "What is measured.",
)
_REPEATS = flags.DEFINE_integer("repeats", 15, "Measurements of each kind.")
_JSON = flags.DEFINE_string("json", None, "File to write the figures to.")


def data(folder: Path) -> dict:
  """Compare the loader with the step that it feeds."""
  config = finalize(_CONFIG.value)
  experiment = Experiment(config, RunFolder(folder))
  strategy = make_strategy(config)
  state = strategy.create(experiment.make_state)
  step = compile_train_step(experiment, strategy, state)
  batches = experiment.train_batches()
  placed = strategy.place_batch(batches[0])

  def load_many() -> float:
    """Time the loader over 200 batches, its start left out."""
    loader = load(batches, 0, 210, config.data.num_threads)
    for _ in range(10):
      next(loader)
    began = time.perf_counter()
    for _ in loader:
      pass
    return 200 / (time.perf_counter() - began)

  def step_many() -> float:
    """Time five steps on a batch that is on the device already."""
    nonlocal state
    began = time.perf_counter()
    for _ in range(5):
      state, sums = step(state, placed)
    jax.block_until_ready(sums)
    return 5 / (time.perf_counter() - began)

  return in_turns(loader=load_many, train_step=step_many)


def in_turns(**measures: Callable[[], float]) -> dict:
  """Measure each kind in turn, after one round that does not count.

  Args:
    **measures: name → a function that returns a rate per second; the first is
      compared with the second.
  """
  rates = {name: [] for name in measures}
  for index in range(_REPEATS.value + 1):
    for name, measure in measures.items():
      rate = measure()
      if index:
        rates[name].append(rate)
  first, second = rates.values()
  ratios = [a / b for a, b in zip(first, second, strict=True)]
  return dict(
    unit="batches per second",
    **{
      name: dict(median=statistics.median(values), minimum=min(values))
      for name, values in rates.items()
    },
    ratio=dict(median=statistics.median(ratios), minimum=min(ratios)),
  )


BENCHMARKS = {"data": data}


def main() -> None:
  """Run one benchmark and print its figures as JSON."""
  if _WHAT not in BENCHMARKS:
    raise UsageError(f"say what to measure: one of {', '.join(BENCHMARKS)}.")
  with tempfile.TemporaryDirectory() as folder:
    figures = BENCHMARKS[_WHAT](Path(folder))
  environment = describe_environment()
  report = json.dumps({_WHAT: figures, "environment": environment}, indent=2)
  if _JSON.value:
    Path(_JSON.value).write_text(report + "\n")
  print(report)


if __name__ == "__main__":
  _WHAT = sys.argv.pop(1) if len(sys.argv) > 1 else ""
  command_line.run(main)
