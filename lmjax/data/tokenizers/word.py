# SPDX-License-Identifier: Apache-2.0
"""Words as tokens, with or without punctuation of their own."""

import collections
import re
from collections.abc import Iterable, Sequence

import numpy as np

from lmjax.data.tokenizers.vocabulary import VocabularyTokenizer


class WordTokenizer(VocabularyTokenizer):
  r"""A tokenizer of words between white space, and of newlines.

  >>> tokenizer.encode("a list,\nor not")  # by name
  ["a", "list,", "\n", "or", "not"]
  """

  kind, unit, has_spaces = "word", "word", True

  _PATTERN = re.compile(r"\n|[^\s]+")

  @classmethod
  def count(cls, counts: collections.Counter, text: str) -> None:
    """Add the words of a text to `counts`."""
    counts.update(cls._PATTERN.findall(text))

  def encode(self, text: str) -> np.ndarray:
    """See Tokenizer."""
    text = text.lower() if self.lower_case else text
    words = self._PATTERN.findall(text)
    ids = [self._ids.get(word, self.unk_id) for word in words]
    return np.array(ids, np.int32)

  def decode(self, tokens: Sequence[int]) -> str:
    """Decode tokens to words with single spaces between them."""
    names = self.names()
    skipped = (self.pad_id, self.bos_id, self.eos_id)
    return self._join(names[i] for i in tokens if i not in skipped)

  def normalize(self, text: str) -> str:
    """Put single spaces between the tokens of a text."""
    return self._join(self._PATTERN.findall(super().normalize(text)))

  @staticmethod
  def _join(words: Iterable[str]) -> str:
    # A newline is a token, but has no spaces around it in text.
    return re.sub(r" ?\n ?", "\n", " ".join(words))

  def _edge_classes(self, token: int) -> tuple[int, int]:
    # Class 0 on both sides: each token is a word.
    del token
    return 0, 0


class WordPunctuationTokenizer(WordTokenizer):
  """A tokenizer of words, punctuation marks and newlines.

  >>> tokenizer.encode("it's a list, or `()`.")  # by name
  ["it's", "a", "list", ",", "or", "`", "(", ")", "`", "."]
  """

  kind = "word_punctuation"

  _PATTERN = re.compile(r"\n|\w+(?:['’]\w+)*|[^\w\s]")
