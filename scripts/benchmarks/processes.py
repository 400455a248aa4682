# SPDX-License-Identifier: Apache-2.0
"""Contenders as processes that exchange lines of JSON with this one."""

import contextlib
import json
import os
import re
import select
import subprocess
from pathlib import Path

from benchmarks.cases import Contender

SCRIPTS = Path(__file__).parent.parent
# Copied before lmjax adds its own settings, which peers must not inherit.
ENVIRONMENT = dict(os.environ)
RESPONSE_TIMEOUT = 900  # seconds; compiling may take minutes


class ContenderFailed(Exception):
  """A contender that cannot be measured; the message is one line."""


class Process:
  """The process of a contender, controlled by lines of JSON.

  Args:
    contender: what the process runs.
    python: the interpreter.
    folder: shared by the contenders of a case, for weights, batches and logs.
  """

  def __init__(self, contender: Contender, python: str, folder: Path):
    self.name = contender.name
    log = re.sub(r"\W+", "_", contender.name) + ".log"
    self._log = folder / log
    paths = [str(SCRIPTS), ENVIRONMENT.get("PYTHONPATH", "")]
    environment = {
      # JAX otherwise reserves most of a GPU, and the other JAX processes fail.
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
      self.facts = self._request(
        op="make", work=dict(contender.work), folder=str(folder)
      )
    except BaseException:
      self.close()
      raise

  def run(self, count: int) -> float:
    """Run the workload `count` times; return the time of one run."""
    return self._request(op="run", count=count)["value"]

  def peak_bytes(self) -> int:
    """Return the peak memory of the process."""
    return self._request(op="peak")["peak_bytes"]

  def _request(self, **request) -> dict:
    try:
      self._process.stdin.write(json.dumps(request) + "\n")
      self._process.stdin.flush()
    except OSError as error:
      raise ContenderFailed(self._exit_message()) from error
    responses = self._process.stdout
    if not select.select([responses], [], [], RESPONSE_TIMEOUT)[0]:
      raise ContenderFailed(f"no response within {RESPONSE_TIMEOUT} seconds")
    line = responses.readline()
    if not line:
      raise ContenderFailed(self._exit_message())
    response = json.loads(line)
    if "error" in response:
      raise ContenderFailed(response["error"])
    return response

  def _exit_message(self) -> str:
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
  """A contender that runs in a new process for each measurement.

  Args:
    contender: what the process runs.
    python: the interpreter.
    folder: shared by the contenders of a case.
  """

  def __init__(self, contender: Contender, python: str, folder: Path):
    self.name, self.facts = contender.name, {}
    self._arguments = (contender, python, folder)
    self._peak = 0

  def run(self, count: int) -> float:
    """Run the workload in a new process."""
    process = Process(*self._arguments)
    try:
      self.facts = process.facts
      value = process.run(count)
      self._peak = max(self._peak, process.peak_bytes())
    finally:
      process.close()
    return value

  def peak_bytes(self) -> int:
    """Return the largest peak memory of the processes."""
    return self._peak

  def close(self) -> None:
    """Do nothing: each process ended after its run."""


def start(
  contender: Contender, python: str, folder: Path
) -> Process | FreshProcesses:
  """Return a runner of a contender, started unless each run starts a process.

  Raises:
    ContenderFailed: if it cannot run, for example without its library.
  """
  kind = FreshProcesses if contender.fresh else Process
  return kind(contender, python, folder)
