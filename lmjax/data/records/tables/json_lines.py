# SPDX-License-Identifier: Apache-2.0
"""One JSON object a line."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any

from lmjax.data.records.tables.lines import Line
from lmjax.data.records.tables.table import Problem, Record


@dataclasses.dataclass(frozen=True)
class JSONLines:
  """One JSON object a line; its keys are the columns. Empty lines are none.

  What is no text becomes the text that JSON has for it, and null the empty one;
  lists stay lists.

  >>> read('{"text": "one", "label": 1, "tags": ["A", 2], "note": null}')
  {"text": "one", "label": "1", "tags": ["A", "2"], "note": ""}
  """

  def read(self, lines: Iterable[Line | Problem]) -> Iterator[Record | Problem]:
    """Read line by line."""
    for line in lines:
      if isinstance(line, Problem):
        yield line
      elif line.text.strip():
        yield _record(line)


def _record(line: Line) -> Record | Problem:
  try:
    fields = json.loads(line.text)
  except (ValueError, RecursionError):
    fields = None
  if not isinstance(fields, dict):
    return Problem(line.where, "it is no JSON object")
  return Record(line.where, {key: _texts(x) for key, x in fields.items()})


def _texts(value: Any) -> str | list:
  if isinstance(value, list):
    return [_texts(each) for each in value]
  if value is None:
    return ""
  text = value if isinstance(value, str) else json.dumps(value)
  # Half an emoji, as scraped JSON has it, is no text; U+FFFD takes its place.
  data = text.encode("utf-16-le", "surrogatepass")
  return data.decode("utf-16-le", "replace")
