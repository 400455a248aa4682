# SPDX-License-Identifier: Apache-2.0
"""Command lines as processes that find their libraries imported.

A process imports them once and then becomes each command by a fork, so that a
command costs what it does and not three seconds more.
"""

import functools
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent


class Ended(NamedTuple):
  """What a command left."""

  returncode: int
  stdout: str
  stderr: str


class Commands:
  """Run scripts of the repository, one after the other.

  Args:
    environment: variables that all of them see, beside those that are set.
  """

  def __init__(self, **environment: str):
    self._process = subprocess.Popen(
      [sys.executable, __file__],
      cwd=ROOT,
      env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def __call__(self, folder: Path, script: str, *flags: str) -> Ended:
    """Run a script in a folder."""
    outputs = [folder.parent / f"{folder.name}.{n}" for n in (1, 2)]
    command = [str(folder), script, *flags]
    print(json.dumps([*map(str, outputs), *command]), file=self._process.stdin)
    self._process.stdin.flush()
    returncode = int(self._process.stdout.readline())
    return Ended(returncode, *(path.read_text() for path in outputs))

  def close(self) -> None:
    """End the process."""
    self._process.stdin.close()
    self._process.wait()


@functools.cache
def plain() -> Commands:
  """Return what runs scripts in the environment that is set."""
  return Commands()


def _become(stdout: str, stderr: str, folder: str, script: str, *flags: str):
  """Turn this process into a command."""
  for number, path in enumerate((os.devnull, stdout, stderr)):
    flag = os.O_RDONLY if not number else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.dup2(os.open(path, flag), number)
  os.chdir(folder)
  sys.argv = [str(ROOT / script), *flags]
  sys.path[0] = str((ROOT / script).parent)
  runpy.run_path(sys.argv[0], run_name="__main__")


def _serve() -> None:
  """Import what commands need, then become each of them."""

  for line in sys.stdin:
    child = os.fork()
    if not child:
      _become(*json.loads(line))
      sys.exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
  _serve()
