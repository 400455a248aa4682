# SPDX-License-Identifier: Apache-2.0
"""JSON as every program reads it, which has no word for infinity."""

import json
import math
from typing import Any


def dumps(value: Any, ensure_ascii: bool = True) -> str:
  """Write a value in one line, and null for numbers that are not finite.

  Args:
    value: what is written.
    ensure_ascii: whether other letters are escaped.

  >>> dumps({"step": 3, "perplexity": math.inf})
  '{"step": 3, "perplexity": null}'
  """
  finite = _without_infinities(value)
  return json.dumps(finite, allow_nan=False, ensure_ascii=ensure_ascii)


def _without_infinities(value: Any) -> Any:
  if isinstance(value, dict):
    return {k: _without_infinities(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_without_infinities(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
