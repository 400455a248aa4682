# SPDX-License-Identifier: Apache-2.0
"""The text of each token of a stream."""

from collections.abc import Sequence
from typing import NamedTuple

from lmjax.data.tokenizers import Tokenizer
from lmjax.generation.detokenizer import REPLACEMENT
from lmjax.serving.batcher import Delta

# Tokens before a token on which its text may depend: characters of several
# bytes, and spaces between words.
_NUM_CONTEXT = 8


class TokenText(NamedTuple):
  """A token of a text.

  Attributes:
    text: what it adds to the text before it. A character of several tokens
      belongs to the last of them.
    offset: start of this text, in characters.
    log_prob: log-probability of the token, in nats.
    alternatives: text and log-probability of the most likely tokens at its
      position; the name of a token that is no text by itself.
  """

  text: str
  offset: int
  log_prob: float
  alternatives: list[tuple[str, float]]

  def top_logprobs(self, number: int) -> dict[str, float]:
    """Return the `number` most likely tokens, and the token itself."""
    return {**dict(self.alternatives[:number]), self.text: self.log_prob}


class TokenTexts:
  """Split a stream of text at its tokens; the parts concatenate to the text.

  Args:
    tokenizer: tokenizer of the text.
    names: names of all tokens.
    prompt: the text before; a space after it belongs to the first token.
  """

  def __init__(
    self, tokenizer: Tokenizer, names: Sequence[str], prompt: str = ""
  ):
    self._tokenizer, self._names = tokenizer, names
    self._prompt = prompt  # until there is text after it
    self._context: list[int] = []  # the newest tokens
    self._end, self._text = 0, ""
    self._pending: list[TokenText] = []  # tokens whose text may still change

  def push(self, delta: Delta) -> list[TokenText]:
    """Add tokens; return those whose text is final."""
    self._text += delta.text
    for token, log_prob, top in zip(
      delta.tokens, delta.log_probs, delta.top_logprobs, strict=True
    ):
      alternatives = [
        (self._decode_next(other) or self._names[other], value)
        for other, value in top
      ]
      text = self._decode_next(token)
      self._pending.append(TokenText(text, self._end, log_prob, alternatives))
      self._end += len(text)
      self._prompt = "" if text else self._prompt
      self._context = [*self._context, token][-_NUM_CONTEXT:]
    if delta.finish_reason:
      return self._finish()
    length = len(self._text)
    final = [x for x in self._pending if x.offset + len(x.text) <= length]
    self._pending = self._pending[len(final) :]
    return final

  def _finish(self) -> list[TokenText]:
    """Return the tokens up to the end of the text.

    A stop string may end the text within a token.
    """
    tokens = [x for x in self._pending if x.offset < len(self._text)]
    if tokens:
      tokens[-1] = tokens[-1]._replace(text=self._text[tokens[-1].offset :])
    return tokens

  def _decode_next(self, token: int) -> str:
    """Return what a token adds to the text of those before it."""
    # A difference of two decodings, because the text of a token depends on the
    # tokens before it.
    start = len(self._decode(self._context))
    new = self._decode([*self._context, token])[start:]
    return self._tokenizer.separator(self._prompt, new) + new

  def _decode(self, tokens: Sequence[int]) -> str:
    # Without the bytes of a character that is not complete yet.
    return self._tokenizer.decode(tokens).rstrip(REPLACEMENT)
