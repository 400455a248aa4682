# SPDX-License-Identifier: Apache-2.0
"""Tokens to text while they come, without half characters or stop strings."""

from collections.abc import Sequence

from lmjax.data.tokenizers import EOS, Tokenizer
from lmjax.generator import Piece

_BROKEN = "\ufffd"  # what decoders write for bytes that are no character yet


class TextStream:
  """A text that grows.

  Attributes:
    text: what is sure to stay; it never ends in half a character, nor in what
      may be the begin of a stop string.
    tokens: all tokens so far, without `<eos>`.
    log_probs: of each token, in nats.
    finish: "stop", "length", or "" where the text goes on.

  Args:
    tokenizer: what turns tokens into text.
    stops: strings before which the text ends.
  """

  def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()):
    self._tokenizer, self._stops = tokenizer, tuple(stops)
    self.text, self.finish = "", ""
    self.tokens: list[int] = []
    self.log_probs: list[float] = []

  def push(self, piece: Piece) -> str:
    """Add tokens; return the text that is new."""
    if self.finish:
      return ""
    for token, log_prob in zip(piece.tokens, piece.log_probs, strict=True):
      if token == EOS:
        break
      self.tokens.append(token)
      self.log_probs.append(log_prob)
    self.finish = piece.finish
    text = self._tokenizer.decode(self.tokens)
    found = [  # the one that was complete first, whatever came at a time
      (at + len(stop), at)
      for stop in self._stops
      if (at := text.find(stop)) >= 0
    ]
    if found:
      text, self.finish = text[: min(found)[1]], "stop"
    elif not self.finish:
      text = text[: len(text) - self._num_unsure(text)]
    new, self.text = text[len(self.text) :], text
    return new

  def _num_unsure(self, text: str) -> int:
    """Count the last characters that more tokens may change or take away."""
    whole = text.rstrip(_BROKEN)
    unsure = len(text) - len(whole)
    begun = (
      length
      for stop in self._stops
      for length in range(1, len(stop))
      if whole.endswith(stop[:length])
    )
    return unsure + max(begun, default=0)
