# SPDX-License-Identifier: Apache-2.0
"""Streaming detokenization, without partial characters or stop strings."""

from collections.abc import Sequence

from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError
from lmjax.generation.results import GeneratedChunk

# What decoders write for bytes that do not form a character (yet).
REPLACEMENT = "\ufffd"


class StreamingDetokenizer:
  """The text of a growing sequence of tokens.

  Attributes:
    text: the text that later tokens cannot change: it ends neither within a
      character nor within what may become a stop string.
    tokens: all tokens so far, without `<eos>`. If a stop string ends the text,
      the last token is the one that completes it.
    log_probs: log-probability of each token, in nats.
    top_logprobs: most likely tokens at each position; see GeneratedChunk.
    finish_reason: "stop", "length", or "" if the text is not finished.
    score: see GeneratedChunk.

  Args:
    tokenizer: decodes tokens.
    stop_strings: the text ends before the first of these.

  Raises:
    UsageError: if a stop string is empty.
  """

  def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()):
    if "" in stop_strings:
      raise UsageError("a stop string must not be empty.")
    self._tokenizer, self._stop_strings = tokenizer, tuple(stop_strings)
    self.text, self.finish_reason = "", ""
    self.tokens: list[int] = []
    self.log_probs: list[float] = []
    self.top_logprobs: list[list[tuple[int, float]]] = []
    self.score: float | None = None

  def push(self, chunk: GeneratedChunk) -> str:
    """Append tokens and return the new text."""
    if self.finish_reason:
      return ""
    start, length = len(self.tokens), len(chunk.tokens)
    if self._tokenizer.eos_id in chunk.tokens:
      length = chunk.tokens.index(self._tokenizer.eos_id)
    self.tokens += chunk.tokens[:length]
    self.log_probs += chunk.log_probs[:length]
    self.top_logprobs += chunk.top_logprobs[:length]
    self.finish_reason, self.score = chunk.finish_reason, chunk.score
    text = self._tokenizer.decode(self.tokens)
    if self._find_stop(text) is not None:
      text, self.finish_reason = self._truncate(start), "stop"
    elif not self.finish_reason:
      text = text[: len(text) - self._num_unstable(text)]
    new, self.text = text[len(self.text) :], text
    return new

  def finish(self) -> None:
    """Finish the text here."""
    self.finish_reason = self.finish_reason or "stop"

  def _find_stop(self, text: str) -> int | None:
    """Return the start of the stop string that was complete first."""
    found = [
      (start + len(stop), start)
      for stop in self._stop_strings
      if (start := text.find(stop)) >= 0
    ]
    return min(found)[1] if found else None

  def _truncate(self, start: int) -> str:
    """Remove the tokens after a stop string.

    The result does not depend on the chunk size: tokens are added one by one
    until the text contains a stop string.

    Args:
      start: number of tokens whose text contains none.

    Returns:
      The text before the stop string.
    """
    length, stop = start, None
    while stop is None:
      length += 1
      text = self._tokenizer.decode(self.tokens[:length])
      stop = self._find_stop(text)
    del self.tokens[length:], self.log_probs[length:]
    del self.top_logprobs[length:]
    return text[:stop]

  def _num_unstable(self, text: str) -> int:
    """Count the last characters that later tokens may change or remove.

    With the stop string "end", the last two characters of "depen" are held
    back: the text would end before them if the next token were "d".
    """
    complete = text.rstrip(REPLACEMENT)
    partial = len(text) - len(complete)
    prefix_lengths = (
      length
      for stop in self._stop_strings
      for length in range(1, len(stop))
      if complete.endswith(stop[:length])
    )
    return partial + max(prefix_lengths, default=0)


def truncate_at_stop_string(
  tokenizer: Tokenizer, chunk: GeneratedChunk, stop_strings: Sequence[str]
) -> GeneratedChunk:
  """Remove what follows a stop string from a complete sequence."""
  text = tokenizer.decode(chunk.tokens)
  if not any(stop in text for stop in stop_strings):
    return chunk
  detokenizer = StreamingDetokenizer(tokenizer, stop_strings)
  detokenizer.push(chunk)
  return GeneratedChunk(
    detokenizer.tokens,
    detokenizer.log_probs,
    detokenizer.finish_reason,
    detokenizer.top_logprobs,
  )
