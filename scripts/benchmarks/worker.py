# SPDX-License-Identifier: Apache-2.0
"""The process of a contender: one JSON response per JSON request.

    python -m benchmarks.worker MODULE

Requests: {"op": "make", "work": ..., "folder": ...}, {"op": "run", "count": n}
and {"op": "peak"}. What libraries print goes to stderr, so that
stdout carries responses only.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any


class Server:
  """Handle the requests for one contender.

  Args:
    module: name of a module of this package.
  """

  def __init__(self, module: str):
    self._name = f"benchmarks.{module}"
    self._module, self._workload = None, None

  def handle(self, request: dict) -> dict[str, Any]:
    """Run a request; return its response."""
    if request["op"] == "make":
      self._module = importlib.import_module(self._name)
      folder = Path(request["folder"])
      self._workload = self._module.make(request["work"], folder)
      return self._workload.facts
    if request["op"] == "run":
      return {"value": self._workload.run(request["count"])}
    return {"peak_bytes": self._module.peak_bytes()}


def main() -> None:
  """Handle requests until stdin is closed."""
  # Libraries also print from C, so file descriptor 1 itself is redirected.
  responses = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  server = Server(sys.argv[1])
  for line in sys.stdin:
    try:
      response = server.handle(json.loads(line))
    except Exception as error:  # the other process reports it
      first = str(error).strip().split("\n")[0]
      response = {"error": f"{type(error).__name__}: {first}"}
    print(json.dumps(response), file=responses, flush=True)


if __name__ == "__main__":
  main()
