# SPDX-License-Identifier: Apache-2.0
"""Numbers in words and in digits, made by rule: a text to translate."""

from collections.abc import Iterator

import numpy as np

from lmjax.data.records.tables.table import Record
from lmjax.data.shuffle import permute

SMALL, LARGE = 10_000, 1_000_000
_KEY = 1  # of the order in which larger numbers are sampled
# fmt: off
_ONES = (
  "zero", "one", "two", "three", "four", "five", "six", "seven", "eight",
  "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen",
  "sixteen", "seventeen", "eighteen", "nineteen",
)
_TENS = (
  "zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy",
  "eighty", "ninety",
)
# fmt: on


class NumberWords:
  """All numbers below 10,000, and as many of those below a million.

  Columns are "source", in words, and "target", in digits.
  """

  fingerprint = f"number_words {SMALL} {LARGE} {_KEY}"

  def __iter__(self) -> Iterator[Record]:
    """Make number after number."""
    number = LARGE - SMALL
    keys = np.full(SMALL, _KEY, np.uint64)
    larger = SMALL + permute(np.arange(SMALL), number, keys)
    for value in [*range(SMALL), *map(int, larger)]:
      fields = dict(source=spell(value), target=str(value))
      yield Record(f"number {value}", fields)


def spell(number: int) -> str:
  """Say a number below a million in English.

  >>> spell(21_304)
  "twenty one thousand three hundred and four"
  """
  if number < 20:
    return _ONES[number]
  if number < 100:
    tens, ones = divmod(number, 10)
    return f"{_TENS[tens]} {_ONES[ones]}" if ones else _TENS[tens]
  size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
  many, rest = divmod(number, size)
  words = f"{spell(many)} {name}"
  if not rest:
    return words
  return f"{words} {'and ' if rest < 100 else ''}{spell(rest)}"
