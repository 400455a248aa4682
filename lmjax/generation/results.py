# SPDX-License-Identifier: Apache-2.0
"""What generators return: tokens with their statistics."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmjax.decoding.generate import SampledTokens
from lmjax.generation.requests import Request


class GeneratedChunk(NamedTuple):
  """New tokens of one request.

  Attributes:
    tokens: the new tokens, including the stop token.
    log_probs: log-probability of each in nats under the model, before logits
      processors.
    finish_reason: "stop", "length", or "" if the sequence is not finished.
    top_logprobs: for each token, the most likely tokens at its position and
      their log-probabilities, most likely first; empty if not requested.
    score: the score by which a search selected the sequence; None if it was
      sampled.
  """

  tokens: list[int]
  log_probs: list[float]
  finish_reason: str
  top_logprobs: Sequence[list[tuple[int, float]]] = ()
  score: float | None = None


class GenerationStats(NamedTuple):
  """Speed of a generation.

  Attributes:
    prompt_tokens: number of prompt and source tokens.
    prefill_seconds: time of the prefill; 0 if it is part of decoding.
    new_tokens: number of generated tokens.
    decode_seconds: time of decoding.
    first_seconds: time until the first tokens were available.
    tokens_per_call: mean number of tokens per sequence and call of the model;
      above 1 with speculative decoding.
  """

  prompt_tokens: int = 0
  prefill_seconds: float = 0.0
  new_tokens: int = 0
  decode_seconds: float = 0.0
  first_seconds: float = 0.0
  tokens_per_call: float = 1.0

  def plus(self, later: "GenerationStats") -> "GenerationStats":
    """Add the statistics of a later generation."""
    both = [stats for stats in (self, later) if stats.new_tokens]
    calls = sum(stats.new_tokens / stats.tokens_per_call for stats in both)
    new_tokens = self.new_tokens + later.new_tokens
    return GenerationStats(
      self.prompt_tokens + later.prompt_tokens,
      self.prefill_seconds + later.prefill_seconds,
      new_tokens,
      self.decode_seconds + later.decode_seconds,
      self.first_seconds or later.first_seconds,
      new_tokens / calls if calls else 1.0,
    )

  def __str__(self) -> str:
    """Describe it in one line."""
    text = f"prefill {self.prompt_tokens:,} tokens"
    if self.prefill_seconds:
      text += f", {self.prompt_tokens / self.prefill_seconds:,.0f} tokens/s"
    decode = self.new_tokens / max(self.decode_seconds, 1e-9)
    text += (
      f"; decode {self.new_tokens:,} tokens, {decode:,.0f} tokens/s; first "
      f"token after {self.first_seconds:.3f} s"
    )
    if self.tokens_per_call != 1:
      text += f"; {self.tokens_per_call:.2f} tokens per call of the model"
    return text


class Generated(NamedTuple):
  """Chunks of all requests of a batch.

  Attributes:
    chunks: one per request.
    stats: statistics of the batch up to and including these chunks.
  """

  chunks: list[GeneratedChunk]
  stats: GenerationStats


def make_chunks(
  sampled: SampledTokens,
  start_B: np.ndarray,
  count_B: np.ndarray,
  finish_reasons: Sequence[str],
) -> list[GeneratedChunk]:
  """Turn arrays into one chunk per request.

  Args:
    sampled: NumPy arrays; columns after the new tokens are padding.
    start_B: number of tokens of each sequence before these.
    count_B: number of tokens of each sequence with these.
    finish_reasons: one per request; further rows are padding.
  """
  chunks = []
  for row, finish_reason in enumerate(finish_reasons):
    length = count_B[row] - start_B[row]
    tokens, log_probs, *top = (
      array[row, :length].tolist() for array in sampled if array is not None
    )
    top_logprobs = [
      [*zip(*pair, strict=True)] for pair in zip(*top, strict=True)
    ]
    chunks.append(
      GeneratedChunk(tokens, log_probs, finish_reason, top_logprobs)
    )
  return chunks


def search_stats(
  requests: Sequence[Request],
  chunks: Sequence[GeneratedChunk],
  started: float,
  tokens_per_call: float = 1.0,
) -> GenerationStats:
  """Return the statistics of a search, whose sequences end all at once.

  Args:
    requests: the requests.
    chunks: their sequences.
    started: `time.perf_counter()` when the search started.
    tokens_per_call: see GenerationStats.
  """
  seconds = time.perf_counter() - started
  return GenerationStats(
    prompt_tokens=sum(request.prompt_length for request in requests),
    new_tokens=sum(len(chunk.tokens) for chunk in chunks),
    decode_seconds=seconds,
    first_seconds=seconds,
    tokens_per_call=tokens_per_call,
  )
