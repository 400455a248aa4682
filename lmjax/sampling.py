# SPDX-License-Identifier: Apache-2.0
"""How tokens are chosen, as users say it: numbers by their usual names."""

import dataclasses
import operator

from lmjax.data.tokenizers import Tokenizer
from lmjax.decoding.filters import (
  Filter,
  Greedy,
  Temperature,
  TopK,
  TopP,
)
from lmjax.errors import UsageError

_HOLDS = dict(above=operator.gt, at_least=operator.ge, at_most=operator.le)


def _number(default: float, text: str, **limits: float) -> dataclasses.Field:
  """Declare a setting; limits are `above`, `at_least` and `at_most`."""
  return dataclasses.field(
    default=default, metadata=dict(help=text, limits=limits)
  )


@dataclasses.dataclass(frozen=True)
class Sampling:
  """What the next token is chosen by; the defaults draw from the model as is.

  Each field is a setting of samplers and a flag of scripts/sample.py, which
  says `help` of it.

  Raises:
    UsageError: if a number is out of range.
  """

  temperature: float = _number(1.0, "0: most likely only.", at_least=0)
  top_k: int = _number(0, "Choose among the k best; 0: all.", at_least=0)
  top_p: float = _number(1.0, "Choose among probability p.", above=0, at_most=1)

  def __post_init__(self):
    """Check the numbers."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      for kind, limit in field.metadata["limits"].items():
        if not _HOLDS[kind](value, limit):
          limits = field.metadata["limits"].items()
          said = " and ".join(f"{k.replace('_', ' ')} {x}" for k, x in limits)
          raise UsageError(f"{field.name}={value} must be {said}.")

  def filters(self, tokenizer: Tokenizer) -> tuple[Filter, ...]:
    """Return what is said as filters, in the usual order."""
    del tokenizer
    filters = [Temperature(self.temperature) if self.temperature else Greedy()]
    if self.top_k:
      filters.append(TopK(self.top_k))
    if self.top_p < 1:
      filters.append(TopP(self.top_p))
    return tuple(filters)
