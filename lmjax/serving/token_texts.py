# SPDX-License-Identifier: Apache-2.0
"""What each token of a text stands for, while tokens come."""

from collections.abc import Sequence
from typing import NamedTuple

from lmjax.data.tokenizers import Tokenizer
from lmjax.generation.detokenizer import REPLACEMENT
from lmjax.serving.batcher import Delta

_RECENT = 8  # tokens before a token that may say how it is written


class Told(NamedTuple):
  """A token of a text.

  Attributes:
    text: what it adds to the text before it; a character of several tokens
      stands with the last of them.
    offset: where that begins, in characters.
    log_prob: of the token, in nats.
    likely: log-probabilities of the likeliest tokens in its place, by their
      text, or by their name where they are no text by themselves.
  """

  text: str
  offset: int
  log_prob: float
  likely: list[tuple[str, float]]

  def best(self, number: int) -> dict[str, float]:
    """Return so many of the likeliest tokens, and the token itself."""
    return {**dict(self.likely[:number]), self.text: self.log_prob}


class TokenTexts:
  """Cut a text at its tokens; their texts add up to it.

  Args:
    tokenizer: turns tokens into text.
    names: of all tokens.
    prompt: what the text goes on from; a space between them is the first's.
  """

  def __init__(
    self, tokenizer: Tokenizer, names: Sequence[str], prompt: str = ""
  ):
    self._tokenizer, self._names = tokenizer, names
    self._prompt = prompt  # until there is text behind it
    self._recent: list[int] = []  # the newest tokens
    self._end, self._text = 0, ""
    self._held: list[Told] = []  # tokens whose text is not sure yet

  def push(self, news: Delta) -> list[Told]:
    """Add tokens; return those whose text is sure."""
    self._text += news.text
    for token, log_prob, best in zip(
      news.tokens, news.log_probs, news.top_logprobs, strict=True
    ):
      likely = [
        (self._written(other) or self._names[other], value)
        for other, value in best
      ]
      text = self._written(token)
      self._held.append(Told(text, self._end, log_prob, likely))
      self._end += len(text)
      self._prompt = "" if text else self._prompt
      self._recent = [*self._recent, token][-_RECENT:]
    if news.finish_reason:
      return self._finish()
    sure = [x for x in self._held if x.offset + len(x.text) <= len(self._text)]
    self._held = self._held[len(sure) :]
    return sure

  def _finish(self) -> list[Told]:
    """Return the tokens up to the end of the text."""
    kept = [told for told in self._held if told.offset < len(self._text)]
    if kept:
      kept[-1] = kept[-1]._replace(text=self._text[kept[-1].offset :])
    return kept

  def _written(self, token: int) -> str:
    """Return what a token adds to those before it."""
    known = len(self._sure(self._recent))
    new = self._sure([*self._recent, token])[known:]
    return self._tokenizer.gap(self._prompt, new) + new

  def _sure(self, tokens: Sequence[int]) -> str:
    return self._tokenizer.decode(tokens).rstrip(REPLACEMENT)
