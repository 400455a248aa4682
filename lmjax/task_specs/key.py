# SPDX-License-Identifier: Apache-2.0
"""Declaration of a config key: its default, valid range and choices.

The default and what is valid are declared together, once. A config is built
from the defaults, and `lmjax.config.finalize` checks values against the rest.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Key:
  """A config key.

  >>> Key(0.1, 0, 1).problem(1.5)
  "must be at most 1"
  >>> Key("cosine", choices=("constant", "cosine")).problem("linear")
  "is not known; choose one of constant, cosine"

  Attributes:
    default: the value of a config that does not set the key.
    minimum: smallest valid number.
    maximum: largest valid number.
    below: bound that a number must stay under; infinity for none.
    choices: valid values; empty if they are not enumerated. They are literal
      names, and a test compares them with the registries that they select
      from, so that declaring a key imports nothing.
  """

  default: Any
  minimum: float = 0
  maximum: float = math.inf
  below: float = math.inf
  choices: tuple[str, ...] = ()

  def problem(self, value: Any) -> str:
    """Return what is wrong with a value, or an empty string."""
    if self.choices and value not in self.choices:
      listed = ", ".join(filter(None, self.choices))
      return f"is not known; choose one of {listed}"
    if isinstance(value, bool) or not isinstance(value, int | float):
      return ""
    if not value >= self.minimum:  # also rejects NaN
      return f"must be at least {self.minimum:g}"
    if value > self.maximum:
      return f"must be at most {self.maximum:g}"
    if value >= self.below:
      return f"must be below {self.below:g}"
    return ""


Keys = Mapping[str, Key]


def positive(default: int) -> Key:
  """Declare a number that is at least 1."""
  return Key(default, minimum=1)


def above_zero(default: float, maximum: float = math.inf) -> Key:
  """Declare a real number above 0."""
  return Key(default, minimum=1e-9, maximum=maximum)


def fraction(default: float) -> Key:
  """Declare a number from 0 to 1."""
  return Key(default, maximum=1)


def rate(default: float) -> Key:
  """Declare a number from 0 to below 1, such as a dropout rate."""
  return Key(default, below=1)


def choice(default: str, *others: str) -> Key:
  """Declare one of several names; the first is the default."""
  return Key(default, choices=(default, *others))


def unbounded(default: float) -> Key:
  """Declare a real number of either sign."""
  return Key(default, minimum=-math.inf)
