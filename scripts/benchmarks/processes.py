# SPDX-License-Identifier: Apache-2.0
"""Contenders as processes: started, asked, ended."""

import contextlib
import json
import os
import re
import select
import subprocess
from pathlib import Path

from benchmarks.cases import Contender

SCRIPTS = Path(__file__).parent.parent
# As the user has it: before lmjax adds its settings for itself.
ENVIRONMENT = dict(os.environ)
LONGEST_ANSWER = 900  # seconds; compiling may take minutes


class ContenderFailed(Exception):
  """A contender that cannot be measured; the message is one line."""


class Process:
  """A contender's process, asked by lines of JSON.

  Args:
    contender: what it does.
    python: the interpreter.
    folder: shared by the contenders of a case, for weights, batches and logs.
  """

  def __init__(self, contender: Contender, python: str, folder: Path):
    self.name = contender.name
    log = re.sub(r"\W+", "_", contender.name) + ".log"
    self._log = folder / log
    paths = [str(SCRIPTS), ENVIRONMENT.get("PYTHONPATH", "")]
    environment = {
      # So that several JAX processes can share a GPU.
      "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
      **ENVIRONMENT,
      **contender.environment,
      "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    try:
      with open(self._log, "w") as log:
        self._process = subprocess.Popen(
          [python, "-m", "benchmarks.worker", contender.module],
          env=environment,
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          stderr=log,
          text=True,
        )
    except OSError as error:
      raise ContenderFailed(f"{python}: {error.strerror}") from error
    try:
      self.facts = self._ask(
        op="make", work=dict(contender.work), folder=str(folder)
      )
    except BaseException:
      self.close()
      raise

  def run(self, count: int) -> float:
    """Let it do its work `count` times; return what once took."""
    return self._ask(op="run", count=count)["value"]

  def peak_bytes(self) -> int:
    """Return the most memory that it has held."""
    return self._ask(op="peak")["peak_bytes"]

  def _ask(self, **request) -> dict:
    try:
      self._process.stdin.write(json.dumps(request) + "\n")
      self._process.stdin.flush()
    except OSError as error:
      raise ContenderFailed(self._last_words()) from error
    answers = self._process.stdout
    if not select.select([answers], [], [], LONGEST_ANSWER)[0]:
      raise ContenderFailed(f"no answer within {LONGEST_ANSWER} seconds")
    line = answers.readline()
    if not line:
      raise ContenderFailed(self._last_words())
    answer = json.loads(line)
    if "error" in answer:
      raise ContenderFailed(answer["error"])
    return answer

  def _last_words(self) -> str:
    code = self._process.wait()
    lines = self._log.read_text(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"ended with code {code}. {last.strip()}".strip()

  def close(self) -> None:
    """End the process."""
    self._process.kill()
    self._process.wait()
    self._process.stdout.close()
    with contextlib.suppress(OSError):  # an unread request
      self._process.stdin.close()


class FreshProcesses:
  """A contender that is started anew for each measurement.

  Args:
    contender: what it does.
    python: the interpreter.
    folder: shared by the contenders of a case.
  """

  def __init__(self, contender: Contender, python: str, folder: Path):
    self.name, self.facts = contender.name, {}
    self._arguments = (contender, python, folder)
    self._peak = 0

  def run(self, count: int) -> float:
    """Start a process, let it work, end it."""
    process = Process(*self._arguments)
    try:
      self.facts = process.facts
      value = process.run(count)
      self._peak = max(self._peak, process.peak_bytes())
    finally:
      process.close()
    return value

  def peak_bytes(self) -> int:
    """Return the most memory that one of them has held."""
    return self._peak

  def close(self) -> None:
    """Nothing is left to end."""


def start(
  contender: Contender, python: str, folder: Path
) -> Process | FreshProcesses:
  """Start a contender, or get ready to.

  Raises:
    ContenderFailed: if it cannot do its work, as when its library is absent.
  """
  kind = FreshProcesses if contender.fresh else Process
  return kind(contender, python, folder)
