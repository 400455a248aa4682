# SPDX-License-Identifier: Apache-2.0
"""What generators have in common that write texts at once, in a context."""

import time
from collections.abc import Iterator, Sequence

import flax.linen as nn
import numpy as np

from lmjax.decoding.filters import Filter
from lmjax.errors import UsageError
from lmjax.generation.generator import (
  DoneCheck,
  GeneratedChunk,
  GenerationStats,
  Request,
  check_length,
  check_minimum,
)
from lmjax.types import PyTree


class OneShotGenerator:
  """A generator whose texts are there all at once; see Generator.

  Attributes:
    timing: of the last call; reading is part of drawing.

  Args:
    model: keeps the contract of lmjax.models.
    bidirectional_prompt: whether the model reads prompts in both directions.
  """

  def __init__(self, model: nn.Module, bidirectional_prompt: bool = False):
    self._model, self._bidirectional_prompt = model, bidirectional_prompt
    self._tokens_per_call = 1.0
    self.timing = GenerationStats()

  def __call__(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: Filter,
    chunk: int = 0,
    is_done: DoneCheck | None = None,
    num_top_logprobs: int = 0,
  ) -> Iterator[list[GeneratedChunk]]:
    """Write texts for requests.

    Args:
      variables: the model's variables.
      requests: any number of them; all have a source, or none.
      logits_processor: turns logits into those that are chosen by.
      chunk: ignored; sequences are complete at once.
      is_done: ignored.
      num_top_logprobs: ignored; no top log-probabilities are returned.

    Returns:
      One piece for each request, once.

    Raises:
      UsageError: if a number is out of range, or a text would be longer than
        the model's context.
    """
    del chunk, is_done, num_top_logprobs
    for request in requests:
      check_minimum(num_tokens=request.num_tokens)
      check_length(self._model.max_context, request.tokens)
      check_fits(self._model.max_context, request)
    began = time.perf_counter()
    pieces = self.decode(variables, requests, logits_processor)
    seconds = time.perf_counter() - began
    self.timing = GenerationStats(
      prompt_tokens=sum(request.num_read for request in requests),
      new_tokens=sum(len(piece.tokens) for piece in pieces),
      decode_seconds=seconds,
      first_seconds=seconds,
      tokens_per_call=self._tokens_per_call,
    )
    yield pieces

  def decode(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: Filter,
  ) -> list[GeneratedChunk]:
    """Write a text for each request."""
    raise NotImplementedError


def check_fits(max_context: int | None, request: Request) -> None:
  """See that a context holds a prompt and what is written behind it.

  Raises:
    UsageError: if it does not.
  """
  longest = len(request.tokens) + request.num_tokens - 1  # the last is not read
  if max_context is not None and longest > max_context:
    raise UsageError(
      f"the prompt of {len(request.tokens)} tokens and num_tokens="
      f"{request.num_tokens} more do not fit into the model's context of "
      f"{max_context}, beyond which nothing is searched; ask for fewer."
    )


def pieces_of(
  tokens_BN: np.ndarray,
  log_probs_BN: np.ndarray,
  count_B: np.ndarray,
  done_B: np.ndarray,
) -> list[GeneratedChunk]:
  """Turn texts as arrays into pieces."""
  rows = zip(tokens_BN, log_probs_BN, count_B, done_B, strict=True)
  return [
    GeneratedChunk(
      tokens[:count].tolist(),
      log_probs[:count].tolist(),
      "stop" if done else "length",
    )
    for tokens, log_probs, count, done in rows
  ]
