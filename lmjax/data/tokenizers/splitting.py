# SPDX-License-Identifier: Apache-2.0
"""Splits of long texts, so that no tokenizer encodes all of a text at once."""

import re
from collections.abc import Iterator

# A newline between other characters: BPE merges white space, so a split next
# to more of it would change tokens.
_SPLIT = re.compile(r"(?<=\S)\n(?=\S)")


def split_text(text: str, size: int = 1 << 20) -> Iterator[str]:
  r"""Split a long text where both sides are encoded independently.

  Splits are after single newlines between characters other than white space, so
  encoding the parts gives the same tokens as encoding the text:

  >>> list(split_text("ab\ncd\n\nef\ngh", size=4))
  ["ab\ncd\n\nef\n", "gh"]

  Args:
    text: any text.
    size: minimum number of characters of a part other than the last.
  """
  start = 0
  while len(text) - start > size:
    split = _SPLIT.search(text, start + size)
    if not split:
      break
    yield text[start : split.end()]
    start = split.end()
  yield text[start:]
