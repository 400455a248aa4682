# SPDX-License-Identifier: Apache-2.0
"""Tokenizers over a list of strings, counted in the training text."""

import collections
from collections.abc import Iterable, Sequence

import numpy as np

from lmjax.data.tokenizers.splitting import split_text
from lmjax.data.tokenizers.tokenizer import SPECIALS, Tokenizer


class VocabularyTokenizer(Tokenizer):
  """A tokenizer over a list of distinct strings.

  Args:
    tokens: the strings; the first are SPECIALS.
    lower_case: whether text is lower-cased first.
  """

  def __init__(self, tokens: Sequence[str], lower_case: bool):
    self.tokens = list(tokens)
    self.lower_case = lower_case
    self._ids = {token: index for index, token in enumerate(self.tokens)}
    # A word "<eos>" in a text is unknown, not the end of the document.
    for special in (self.pad_id, self.bos_id, self.eos_id):
      del self._ids[self.tokens[special]]

  @classmethod
  def train(
    cls, texts: Iterable[str], vocab_size: int, min_freq: int, lower_case: bool
  ) -> "VocabularyTokenizer":
    """Collect the most frequent tokens; see Tokenizer."""
    counts = collections.Counter()
    for text in texts:
      for chunk in split_text(text):
        cls.count(counts, chunk.lower() if lower_case else chunk)
    return cls.most_frequent(counts, vocab_size, min_freq, lower_case)

  @classmethod
  def most_frequent(
    cls,
    counts: collections.Counter,
    vocab_size: int,
    min_freq: int,
    lower_case: bool,
  ) -> "VocabularyTokenizer":
    """Build a tokenizer of the most frequent tokens; see `train`.

    >>> counts = collections.Counter({"a": 3, "b": 2, "c": 1})
    >>> WordTokenizer.most_frequent(counts, 6, 1, False).tokens
    ["<pad>", "<unk>", "<bos>", "<eos>", "a", "b"]
    """
    for special in SPECIALS:
      counts.pop(special, None)
    room = vocab_size - len(SPECIALS) if vocab_size else len(counts)
    # Ties are in alphabetical order, so that a vocabulary does not depend on
    # the order of documents.
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = [token for token, n in frequent[: max(room, 0)] if n >= min_freq]
    return cls([*SPECIALS, *kept], lower_case)

  @staticmethod
  def count(counts: collections.Counter, text: str) -> None:
    """Add the tokens of a text to `counts`."""
    raise NotImplementedError

  @property
  def base_vocab_size(self) -> int:
    """See Tokenizer."""
    return len(self.tokens)

  def normalize(self, text: str) -> str:
    """Lower-case a text if the tokenizer does."""
    return text.lower() if self.lower_case else text

  def tokens_to_ids(self, tokens: Sequence[str]) -> np.ndarray:
    """Return the ids of strings that are tokens already, int32 [T]."""
    if self.lower_case:
      tokens = [token.lower() for token in tokens]
    ids = [self._ids.get(token, self.unk_id) for token in tokens]
    return np.array(ids, np.int32)

  def names(self) -> list[str]:
    """Return the strings themselves."""
    return [*self.tokens, *self.special_tokens]

  def _token_bytes(self, token: int) -> bytes:
    return self.tokens[token].encode("utf-8", "surrogatepass")

  def to_json(self) -> dict:
    """See Tokenizer."""
    return {"tokens": self.tokens, "lower_case": self.lower_case}
