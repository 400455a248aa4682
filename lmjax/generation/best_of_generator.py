# SPDX-License-Identifier: Apache-2.0
"""The best of several texts that are drawn: by a model, or by one another."""

import time
from collections.abc import Callable, Iterator, Sequence

import flax.linen as nn
import numpy as np

from lmjax.decoding.filters import Filter
from lmjax.generation.continuation_scorer import ContinuationScorer
from lmjax.generation.generator import (
  DoneCheck,
  GeneratedChunk,
  GenerationStats,
  Generator,
  Request,
)
from lmjax.generation.minimum_bayes_risk import Utility, expected_utilities
from lmjax.types import PyTree

# One request as often as it was drawn, and what was drawn → a score each.
Judge = Callable[[Sequence[Request], Sequence[GeneratedChunk]], Sequence[float]]
# The number of a request, and what was drawn → what is kept of it.
Cut = Callable[[int, GeneratedChunk], GeneratedChunk]


class BestOf:
  """Draw texts for each request and keep the one with the highest score.

  Args:
    generator: what draws.
    number: how many texts are drawn.
    judge: what scores texts of one request; of equals the first is kept.
    check: called with the requests before anything is drawn.
  """

  def __init__(
    self,
    generator: Generator,
    number: int,
    judge: Judge,
    check: Callable[[Sequence[Request]], None] = lambda requests: None,
  ):
    self._check = check
    self._generator, self._number, self._judge = generator, number, judge
    self.timing = GenerationStats()

  def __call__(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: Filter,
    chunk: int = 0,
    is_done: DoneCheck | None = None,
    num_top_logprobs: int = 0,
    cut: Cut | None = None,
  ) -> Iterator[list[GeneratedChunk]]:
    """Write texts for requests; see Generator.

    Args:
      variables: the model's variables.
      requests: any number of them; all have a source, or none.
      logits_processor: turns logits into those that are drawn from.
      chunk: ignored; sequences are complete at once.
      is_done: ignored.
      num_top_logprobs: see Generator.
      cut: ends texts before they are judged; None where they end by themselves.

    Returns:
      One piece for each request, once.
    """
    del chunk, is_done
    self._check(requests)
    number = self._number
    many = [
      request._replace(sample=request.sample * number + index)
      for request in requests
      for index in range(number)
    ]
    (pieces,) = self._generator(
      variables, many, logits_processor, num_top_logprobs=num_top_logprobs
    )
    began, best = time.perf_counter(), []
    if cut is not None:
      pieces = [cut(n // number, piece) for n, piece in enumerate(pieces)]
    for start in range(0, len(many), number):
      own = slice(start, start + number)
      scores = self._judge(many[own], pieces[own])
      index = int(np.argmax(scores))
      best.append(pieces[start + index]._replace(score=float(scores[index])))
    seconds = time.perf_counter() - began
    timing = self._generator.timing
    self.timing = timing._replace(
      decode_seconds=timing.decode_seconds + seconds,
      first_seconds=timing.first_seconds + seconds,
    )
    yield best


def by_log_probs(per_token: bool) -> Judge:
  """Score texts by the log-probabilities in nats that they were drawn with.

  Args:
    per_token: whether the mean over tokens counts, or the sum.
  """
  combine = np.mean if per_token else np.sum

  def judge(
    requests: Sequence[Request], pieces: Sequence[GeneratedChunk]
  ) -> list[float]:
    del requests
    return [float(combine(piece.log_probs)) for piece in pieces]

  return judge


def by_model(model: nn.Module, variables: PyTree, per_token: bool) -> Judge:
  """Score texts by their log-probabilities in nats, as another model has them.

  Args:
    model: a language model, of the tokenizer that texts are drawn with.
    variables: its own.
    per_token: see by_log_probs.
  """
  scorer, judge_scores = ContinuationScorer(model), by_log_probs(per_token)

  def judge(
    requests: Sequence[Request], pieces: Sequence[GeneratedChunk]
  ) -> list[float]:
    prompts = [request._replace(source=None) for request in requests]
    texts = [piece.tokens for piece in pieces]
    scores = scorer(variables, prompts, texts)
    pairs = zip(pieces, scores, strict=True)
    return judge_scores(
      requests, [piece._replace(log_probs=own) for piece, own in pairs]
    )

  return judge


def by_themselves(
  decode: Callable[[list[int]], str], utility: Utility
) -> Judge:
  """Score texts by what the others say: minimum Bayes risk.

  Args:
    decode: turns tokens into text.
    utility: see expected_utilities.
  """

  def judge(
    requests: Sequence[Request], pieces: Sequence[GeneratedChunk]
  ) -> list[float]:
    del requests
    texts = [decode(piece.tokens) for piece in pieces]
    return expected_utilities(texts, utility)

  return judge
