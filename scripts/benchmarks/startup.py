# SPDX-License-Identifier: Apache-2.0
"""Whole commands, from their start to the end of their first train step."""

import importlib
import importlib.metadata
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import SCRIPTS

ROOT = SCRIPTS.parent
NO_EXTRAS = ("eval_every", "sample_every", "checkpoint_every")


def make(work: dict, folder: Path) -> "Startup":
  """Choose the command."""
  return {"train": Train, "first_step": FirstStep}[work["what"]](folder)


def peak_bytes() -> int:
  """Return the largest peak memory of the commands."""
  return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


class Startup:
  """A command that is timed until it prints a line.

  Args:
    folder: for what it writes.
  """

  first_step: str  # pattern of the line

  def __init__(self, folder: Path):
    self._folder = folder
    self.facts = dict(environment=self.environment())

  def environment(self) -> dict:
    """Return versions and whatever else the measurements depend on."""
    raise TypeError("use a subclass")

  def command(self, folder: Path) -> list[str]:
    """Return the command, for a new and empty folder."""
    raise TypeError("use a subclass")

  def run(self, count: int) -> float:
    """Time the command; return seconds of one start."""
    return sum(self._start() for _ in range(count)) / count

  def _start(self) -> float:
    with tempfile.TemporaryDirectory(dir=self._folder) as folder:
      command = self.command(Path(folder))
      # Programs that JAX keeps are this benchmark's own.
      environment = {**os.environ, "XDG_CACHE_HOME": str(self._folder)}
      began = time.perf_counter()
      with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      ) as process:
        seconds, last = None, ""
        for line in process.stdout:
          if seconds is None and re.match(self.first_step, line):
            seconds = time.perf_counter() - began
          last = line.strip() or last
    if seconds is None:
      raise RuntimeError(f"no step was made: {last}")
    return seconds


class Train(Startup):
  """train.py, on nanoGPT's small setting."""

  first_step = r"step +1 train"

  def environment(self) -> dict:
    """Return the environment of lmjax."""
    return importlib.import_module("benchmarks.lmjax_contender").environment()

  def command(self, folder: Path) -> list[str]:
    """Train for two steps: the first is logged while the second runs."""
    return [
      sys.executable,
      str(ROOT / "train.py"),
      f"--config={ROOT}/configs/char_transformer.py",
      f"--workdir={folder}/run",
      "--config.train.num_steps=2",
      "--config.train.log_every=1",
      *(f"--config.train.{name}=0" for name in NO_EXTRAS),
    ]


class FirstStep(Startup):
  """first_step.py, which imports torch and trains the same model."""

  first_step = r"step 1"

  def environment(self) -> dict:
    """Return the version of torch, without importing it."""
    return dict(versions={"torch": importlib.metadata.version("torch")})

  def command(self, folder: Path) -> list[str]:
    """Run one step."""
    del folder
    return [sys.executable, "-m", "benchmarks.first_step"]
