# SPDX-License-Identifier: Apache-2.0
"""Unicode characters as tokens."""

import collections
from collections.abc import Sequence

import numpy as np

from lmjax.data.tokenizers.vocabulary import VocabularyTokenizer


class CharacterTokenizer(VocabularyTokenizer):
  """A tokenizer of the Unicode characters of the training text."""

  kind, unit = "character", "character"

  def __init__(self, tokens: Sequence[str], lower_case: bool):
    super().__init__(tokens, lower_case)
    # A table of all code points encodes a text by one NumPy indexing; a
    # dictionary would be looked up once per character.
    self._by_code_point = np.full(0x110000, self.unk_id, np.int32)
    for token in self.text_ids.tolist():
      # The lower case of some characters is two, which `encode` sees as two.
      if len(self.tokens[token]) == 1:
        self._by_code_point[ord(self.tokens[token])] = token

  @staticmethod
  def count(counts: collections.Counter, text: str) -> None:
    """Add the characters of a text to `counts`."""
    counts.update(text)

  def encode(self, text: str) -> np.ndarray:
    """See Tokenizer."""
    text = text.lower() if self.lower_case else text
    # In UTF-32 each character is one integer: its code point.
    data = text.encode("utf-32-le", "surrogatepass")
    return self._by_code_point[np.frombuffer(data, np.uint32)]

  def _decode(self, tokens: list[int]) -> str:
    """Decode tokens to text, with U+FFFD for `<unk>`."""
    shown = dict.fromkeys(self.special_ids, "")
    shown[self.unk_id] = "\N{REPLACEMENT CHARACTER}"
    return "".join(shown.get(token, self.tokens[token]) for token in tokens)

  def _edge_classes(self, token: int) -> tuple[int, int]:
    inside = int(not self.tokens[token].isspace())
    return inside, inside
