# SPDX-License-Identifier: Apache-2.0
"""Where numbers go: metrics.jsonl, TensorBoard's events, the terminal."""

import json
import math
import sys
from pathlib import Path

import jax
import tensorboardX
import tqdm

from lmjax import strict_json


class MetricWriter:
  """Write records to all places.

  metrics.jsonl is the source of truth: one object a line, flushed at once, with
  null for numbers that are not finite. Records later than the step from which a
  run resumes are removed first, so that none is duplicated.

  In a run of several processes, the first one writes.

  Args:
    path: the file of records.
    events: the folder of TensorBoard's files.
    step: the step that the run starts from.
  """

  def __init__(self, path: Path, events: Path, step: int):
    self._silent = jax.process_index() > 0
    if self._silent:
      return
    if path.exists():
      lines = path.read_text(encoding="utf-8").splitlines()
      kept = [line for line in lines if _step(line) <= step]
      partial = path.with_suffix(".partial")
      partial.write_text("".join(line + "\n" for line in kept), "utf-8")
      partial.replace(path)
    self._file = open(path, "a", encoding="utf-8")
    self._events = tensorboardX.SummaryWriter(str(events), purge_step=step + 1)

  def write(self, step: int, split: str, record: dict) -> None:
    """Write the numbers and texts of a record, and show them.

    Tables, which a report may hold too, are left to scripts/evaluate.py.
    """
    if self._silent:
      return
    record = {k: v for k, v in record.items() if not isinstance(v, dict)}
    line = strict_json.dumps({"step": step, "split": split, **record})
    self._file.write(line + "\n")
    self._file.flush()
    for name, value in record.items():
      if isinstance(value, str):
        self._events.add_text(f"{split}/{name}", value, step)
      elif math.isfinite(value):  # of others TensorBoard only warns
        self._events.add_scalar(f"{split}/{name}", value, step)
    show(f"step {step:>6} {split:<6} {_sentence(record)}")

  def close(self) -> None:
    """Finish the files."""
    if self._silent:
      return
    self._file.close()
    self._events.close()


def show(text: str) -> None:
  """Print to stderr, above a progress bar, once for all processes."""
  if jax.process_index() == 0:
    tqdm.tqdm.write(text, file=sys.stderr)


def _step(line: str) -> float:
  try:
    return json.loads(line)["step"]
  except (ValueError, KeyError, TypeError):
    return float("inf")  # an incomplete line, as after a power failure


def _sentence(record: dict) -> str:
  texts = [f"\n{value}\n" for value in record.values() if _is_text(value)]
  numbers = [
    f"{name} {_short(value)}"
    for name, value in record.items()
    if not _is_text(value)
  ]
  return "  ".join(numbers + texts)


def _short(number: float) -> str:
  whole = 1000 <= abs(number) < 1e9
  return f"{number:,.0f}" if whole else f"{number:.4g}"


def _is_text(value: object) -> bool:
  return isinstance(value, str)
