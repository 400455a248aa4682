# SPDX-License-Identifier: Apache-2.0
"""Tokens to text while they come, without half characters or stop strings."""

from collections.abc import Sequence

from lmjax.data.tokenizers import EOS, Tokenizer
from lmjax.errors import UsageError
from lmjax.generation.generator import GeneratedChunk

BROKEN = "\ufffd"  # what decoders write for bytes that are no character yet


class StreamingDetokenizer:
  """A text that grows.

  Attributes:
    text: what is sure to stay; it never ends in half a character, nor in what
      may be the begin of a stop string.
    tokens: all tokens so far, without `<eos>`; where a stop string ends the
      text, its last token is the one that completes the string.
    log_probs: of each token, in nats.
    best: the likeliest tokens in the place of each; see GeneratedChunk.
    finish_reason: "stop", "length", or "" where the text goes on.
    score: see GeneratedChunk.

  Args:
    tokenizer: what turns tokens into text.
    stop_strings: strings before which the text ends.

  Raises:
    UsageError: if one of them is empty.
  """

  def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()):
    if "" in stop_strings:
      raise UsageError("a stop string must not be empty; give some text.")
    self._tokenizer, self._stop_strings = tokenizer, tuple(stop_strings)
    self.text, self.finish_reason = "", ""
    self.tokens: list[int] = []
    self.log_probs: list[float] = []
    self.best: list[list[tuple[int, float]]] = []
    self.score: float | None = None

  def push(self, piece: GeneratedChunk) -> str:
    """Add tokens; return the text that is new."""
    if self.finish_reason:
      return ""
    known = len(self.tokens)
    length = len(piece.tokens)
    if EOS in piece.tokens:
      length = piece.tokens.index(EOS)
    self.tokens += piece.tokens[:length]
    self.log_probs += piece.log_probs[:length]
    self.best += piece.best[:length]
    self.finish_reason, self.score = piece.finish_reason, piece.score
    text = self._tokenizer.decode(self.tokens)
    if self._end(text) is not None:
      text, self.finish_reason = self._cut(known), "stop"
    elif not self.finish_reason:
      text = text[: len(text) - self._num_unsure(text)]
    new, self.text = text[len(self.text) :], text
    return new

  def cut(self, piece: GeneratedChunk) -> GeneratedChunk:
    """Leave out what follows a stop string of a text that is there at once.

    Nothing is added.
    """
    if self._end(self._tokenizer.decode(piece.tokens)) is None:
      return piece
    other = StreamingDetokenizer(self._tokenizer, self._stop_strings)
    other.push(piece)
    return GeneratedChunk(
      other.tokens, other.log_probs, other.finish_reason, other.best
    )

  def end(self) -> None:
    """Let the text end here."""
    self.finish_reason = self.finish_reason or "stop"

  def _end(self, text: str) -> int | None:
    """Find the stop string that was complete first."""
    found = [
      (at + len(stop), at)
      for stop in self._stop_strings
      if (at := text.find(stop)) >= 0
    ]
    return min(found)[1] if found else None

  def _cut(self, known: int) -> str:
    """Forget tokens behind a stop string, however many came at a time.

    Args:
      known: how many of the tokens complete none.

    Returns:
      The text before it.
    """
    length, end = known, None
    while end is None:
      length += 1
      text = self._tokenizer.decode(self.tokens[:length])
      end = self._end(text)
    del self.tokens[length:], self.log_probs[length:], self.best[length:]
    return text[:end]

  def _num_unsure(self, text: str) -> int:
    """Count the last characters that more tokens may change or take away."""
    whole = text.rstrip(BROKEN)
    unsure = len(text) - len(whole)
    begun = (
      length
      for stop in self._stop_strings
      for length in range(1, len(stop))
      if whole.endswith(stop[:length])
    )
    return unsure + max(begun, default=0)
