# SPDX-License-Identifier: Apache-2.0
"""The measured side of the pipe: a line of JSON asks, a line answers.

    python -m benchmarks.worker MODULE

Requests: {"op": "make", "work": ..., "folder": ...}, {"op": "run", "count": n}
and {"op": "peak"}. What libraries print goes to stderr, so that the answers
are alone on stdout.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any


class Server:
  """One module's work.

  Args:
    module: name of a module of this package.
  """

  def __init__(self, module: str):
    self._name = f"benchmarks.{module}"
    self._module, self._workload = None, None

  def answer(self, request: dict) -> dict[str, Any]:
    """Do what a request asks."""
    if request["op"] == "make":
      self._module = importlib.import_module(self._name)
      folder = Path(request["folder"])
      self._workload = self._module.make(request["work"], folder)
      return self._workload.facts
    if request["op"] == "run":
      return {"value": self._workload.run(request["count"])}
    return {"peak_bytes": self._module.peak_bytes()}


def main() -> None:
  """Answer until the requests end."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  server = Server(sys.argv[1])
  for line in sys.stdin:
    try:
      answer = server.answer(json.loads(line))
    except Exception as error:  # all of them are the asker's to tell
      first = str(error).strip().split("\n")[0]
      answer = {"error": f"{type(error).__name__}: {first}"}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
  main()
