# SPDX-License-Identifier: Apache-2.0
"""Sampling several sequences and keeping the one with the highest score."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from lmjax.data.tokenizers import Tokenizer
from lmjax.decoding.logits_processors import LogitsProcessor
from lmjax.generation.continuation_scorer import ContinuationScorer
from lmjax.generation.detokenizer import truncate_at_stop_string
from lmjax.generation.generator import Generator
from lmjax.generation.minimum_bayes_risk import Utility, expected_utilities
from lmjax.generation.requests import Request
from lmjax.generation.results import Generated, GeneratedChunk
from lmjax.types import PyTree

# Requests for the sequences of one prompt, and the sequences → scores.
SequenceScorer = Callable[
  [Sequence[Request], Sequence[GeneratedChunk]], Sequence[float]
]


class BestOfGenerator:
  """Keep the best of several sequences; a Generator.

  Args:
    generator: samples the sequences.
    tokenizer: finds stop strings, at which sequences are truncated before they
      are scored.
    num_sequences: number of sequences sampled per request.
    scorer: scores them; of equal scores the first is kept.
    check: called with the requests before anything is sampled.
  """

  def __init__(
    self,
    generator: Generator,
    tokenizer: Tokenizer,
    num_sequences: int,
    scorer: SequenceScorer,
    check: Callable[[Sequence[Request]], None] = lambda requests: None,
  ):
    self._generator, self._tokenizer = generator, tokenizer
    self._num_sequences, self._scorer = num_sequences, scorer
    self._check = check

  def complete(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: LogitsProcessor,
  ) -> Generated:
    """Generate the best sequence of each request; see Generator."""
    self._check(requests)
    number = self._num_sequences
    # Sample i of a prompt is chosen among its samples i · n to i · n + n - 1,
    # so that it does not depend on how many samples are requested.
    repeated = [
      request._replace(sample=request.sample * number + index)
      for request in requests
      for index in range(number)
    ]
    chunks, stats = self._generator.complete(
      variables, repeated, logits_processor
    )
    started, best = time.perf_counter(), []
    chunks = [
      truncate_at_stop_string(self._tokenizer, chunk, request.stop_strings)
      for request, chunk in zip(repeated, chunks, strict=True)
    ]
    for start in range(0, len(repeated), number):
      group = slice(start, start + number)
      scores = self._scorer(repeated[group], chunks[group])
      index = int(np.argmax(scores))
      best.append(chunks[start + index]._replace(score=float(scores[index])))
    seconds = time.perf_counter() - started
    stats = stats._replace(
      decode_seconds=stats.decode_seconds + seconds,
      first_seconds=stats.first_seconds + seconds,
    )
    return Generated(best, stats)


def score_by_log_probs(per_token: bool) -> SequenceScorer:
  """Score by the log-probabilities in nats under the model that samples.

  Args:
    per_token: whether to take the mean over tokens instead of the sum.
  """
  reduce = np.mean if per_token else np.sum

  def score(
    requests: Sequence[Request], chunks: Sequence[GeneratedChunk]
  ) -> list[float]:
    del requests
    return [float(reduce(chunk.log_probs)) for chunk in chunks]

  return score


def score_by_model(
  scorer: ContinuationScorer, variables: PyTree, per_token: bool
) -> SequenceScorer:
  """Score by the log-probabilities in nats under another language model.

  Args:
    scorer: scores with that model, which has the same tokenizer.
    variables: its variables.
    per_token: see score_by_log_probs.
  """
  score_log_probs = score_by_log_probs(per_token)

  def score(
    requests: Sequence[Request], chunks: Sequence[GeneratedChunk]
  ) -> list[float]:
    prompts = [request._replace(source=None) for request in requests]
    log_probs = scorer(variables, prompts, [chunk.tokens for chunk in chunks])
    pairs = zip(chunks, log_probs, strict=True)
    return score_log_probs(
      requests, [chunk._replace(log_probs=x) for chunk, x in pairs]
    )

  return score


def score_by_utility(
  decode: Callable[[list[int]], str], utility: Utility
) -> SequenceScorer:
  """Score by the mean utility against all sequences (minimum Bayes risk).

  Args:
    decode: turns tokens into text.
    utility: see expected_utilities.
  """

  def score(
    requests: Sequence[Request], chunks: Sequence[GeneratedChunk]
  ) -> list[float]:
    del requests
    return expected_utilities([decode(x.tokens) for x in chunks], utility)

  return score
