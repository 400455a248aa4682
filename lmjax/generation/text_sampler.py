# SPDX-License-Identifier: Apache-2.0
"""Text in, text out: prompts are encoded, continued and decoded."""

import functools
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn
import numpy as np

from lmjax.data.text.stream import find_control_code
from lmjax.data.tokenizers import Tokenizer
from lmjax.decoding.logits_processors import (
  Chain,
  LogitsProcessor,
  SuppressTokens,
  chain,
)
from lmjax.errors import UsageError, check_positive
from lmjax.generation.decoding_strategies import (
  SAMPLE,
  Beam,
  DecodingStrategy,
  Sample,
)
from lmjax.generation.detokenizer import StreamingDetokenizer
from lmjax.generation.generator import Generator, ModelBinder
from lmjax.generation.requests import Request, check_length
from lmjax.generation.results import GeneratedChunk, GenerationStats
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.steering import Steering
from lmjax.types import PyTree

# Tokens that are sampled between two checks of stop strings and time.
_CHECK_INTERVAL = 16


class Completion(NamedTuple):
  """A generated text.

  Attributes:
    text: the text, without the prompt.
    tokens: its tokens, without `<eos>`.
    log_probs: log-probability of each in nats under the model, before logits
      processors.
    finish_reason: "stop" (the text is complete) or "length".
    score: the score by which a search selected it; None if it was sampled.
  """

  text: str
  tokens: list[int]
  log_probs: list[float]
  finish_reason: str
  score: float | None = None


class GenerationResult(NamedTuple):
  """Generated texts.

  Attributes:
    completions: `num_samples` texts of the first prompt, then of the second.
    stats: speed of the generation.
  """

  completions: list[Completion]
  stats: GenerationStats

  @property
  def text(self) -> str:
    """The first text."""
    return self.completions[0].text

  @property
  def texts(self) -> list[str]:
    """All texts."""
    return [completion.text for completion in self.completions]


class TextDelta(NamedTuple):
  """New text of one sample.

  Attributes:
    text: the new text.
    index: index of the sample among all completions; see GenerationResult.
    completion: the whole completion when it is finished, else None.
    stats: speed of the generation so far.
  """

  text: str
  index: int
  completion: Completion | None
  stats: GenerationStats


class TextSampler:
  """Generate text with a language model.

  Attributes:
    tokenizer: tokenizer of the generated text.
    reads_sources: whether prompts are source texts of an encoder–decoder.

  Args:
    model: keeps the contract of lmjax.models.
    tokenizer: the tokenizer that the model was trained with.
    bidirectional_prompt: whether attention is bidirectional within a prompt
      (prefix LM).
    allow_special_tokens: whether special tokens after the vocabulary may be
      generated.
    starts_documents: whether prompts are preceded by `<eos>`, as documents are
      in training if they reset the state of the model.
    int8_weights: whether large matrices are stored in int8.
    caches_layout: see ModelBinder.
  """

  reads_sources = False

  def __init__(
    self,
    model: nn.Module,
    tokenizer: Tokenizer,
    bidirectional_prompt: bool = False,
    allow_special_tokens: bool = False,
    starts_documents: bool = False,
    int8_weights: bool = False,
    caches_layout: bool = False,
  ):
    self.tokenizer, self._max_context = tokenizer, model.max_context
    self._starts_documents = starts_documents
    forbidden = tokenizer.non_text_ids
    if allow_special_tokens:
      forbidden = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id)
    self._ban = SuppressTokens(forbidden)
    self._binder = ModelBinder(
      model, bidirectional_prompt, int8_weights, caches_layout
    )
    # Building a strategy or binding a constraint may open runs and build
    # automata, so that calls with equal arguments share them.
    self._generator = functools.lru_cache(maxsize=16)(self._build)
    self._bind_steering = functools.lru_cache(maxsize=16)(
      lambda steering: steering.bind(tokenizer)
    )

  def generate(
    self,
    variables: PyTree,
    prompts: str | Sequence[str],
    params: SamplingParams | None = None,
    *,
    strategy: DecodingStrategy = SAMPLE,
    constraints: Steering | None = None,
    guidance: Steering | None = None,
    batch_size: int = 64,
    max_seconds: float | None = None,
  ) -> GenerationResult:
    """Continue one or many prompts.

    Args:
      variables: variables of the model.
      prompts: texts of any length; an empty one is the start of a document.
      params: number of tokens and samples, seed, stop strings, and how tokens
        are sampled; None for the defaults.
      strategy: how sequences are selected.
      constraints: what the text must match; None for anything.
      guidance: other models that change the distribution; None for none.
      batch_size: maximum number of rows of a batch. The result does not depend
        on it.
      max_seconds: after this time, sequences of a batch are not continued; None
        for no limit. Only `Sample` supports it.

    Raises:
      UsageError: if a value is out of range, or a prompt is longer than the
        model's context.
    """
    completions = {}
    stats = GenerationStats()
    for delta in self.stream(
      variables,
      prompts,
      params,
      strategy=strategy,
      constraints=constraints,
      guidance=guidance,
      batch_size=batch_size,
      max_seconds=max_seconds,
      chunk_size=0,
    ):
      stats = delta.stats
      if delta.completion is not None:
        completions[delta.index] = delta.completion
    return GenerationResult(
      [completions[i] for i in sorted(completions)], stats
    )

  def stream(
    self,
    variables: PyTree,
    prompts: str | Sequence[str],
    params: SamplingParams | None = None,
    *,
    strategy: DecodingStrategy = SAMPLE,
    constraints: Steering | None = None,
    guidance: Steering | None = None,
    batch_size: int = 64,
    max_seconds: float | None = None,
    chunk_size: int = 4,
  ) -> Iterator[TextDelta]:
    """Continue prompts and yield new text as it is generated; see `generate`.

    Strategies other than `Sample` yield whole texts.

    Args:
      variables: variables of the model.
      prompts: see `generate`.
      params: see `generate`.
      strategy: see `generate`.
      constraints: see `generate`.
      guidance: see `generate`.
      batch_size: see `generate`.
      max_seconds: see `generate`.
      chunk_size: number of tokens sampled at a time; 0 for as many as possible.
    """
    params = params or SamplingParams()
    check_positive(batch_size=batch_size)
    _check_strategy(strategy, params, max_seconds)
    prompts = [prompts] if isinstance(prompts, str) else prompts
    requests = self.requests(prompts, params)
    processors = params.logits_processors(self.tokenizer)
    steering = [each for each in (constraints, guidance) if each is not None]
    # Samples of a prompt stay together if possible: a beam finds all of them
    # in one search.
    rows = max(batch_size // strategy.rows_per_sequence, 1)
    rows = rows - rows % params.num_samples or rows
    before = GenerationStats()
    for start in range(0, len(requests), rows):
      group = requests[start : start + rows]
      stats = before
      for delta in self._stream_batch(
        variables,
        group,
        self.chain(group, processors, steering),
        strategy,
        chunk_size,
        max_seconds,
      ):
        stats = before.plus(delta.stats)
        yield delta._replace(index=start + delta.index, stats=stats)
      before = stats

  def requests(
    self, prompts: Sequence[str], params: SamplingParams
  ) -> list[Request]:
    """Return the requests of prompts, all samples of the first prompt first.

    Raises:
      UsageError: if a prompt is longer than the model's context.
    """
    control_code = -1
    if params.control_code:
      control_code = find_control_code(params.control_code, self.tokenizer)
    return [
      Request(
        tokens,
        params.num_tokens,
        params.seed,
        sample,
        control_code=control_code,
        stop_strings=tuple(params.stop),
      )
      for tokens in (self.encode(x, params.control_code) for x in prompts)
      for sample in range(params.num_samples)
    ]

  def chain(
    self,
    requests: Sequence[Request],
    processors: Sequence[LogitsProcessor],
    steering: Sequence[Steering] = (),
  ) -> Chain:
    """Return the logits processors of a batch in the order of their effect."""
    # Steering comes before truncation, which might remove the tokens that it
    # favors. Constraints come before guidance, because a classifier is only
    # applied to the most likely tokens of those that are allowed.
    bound = [
      processor
      for each in steering
      for processor in self._bind_steering(each).logits_processors(requests)
    ]
    return chain([self._ban, *bound, *processors])

  def stream_requests(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: LogitsProcessor,
    detokenizers: Sequence[StreamingDetokenizer],
    chunk_size: int = 0,
    num_top_logprobs: int = 0,
    max_seconds: float | None = None,
  ) -> Iterator[tuple[list[str], GenerationStats]]:
    """Sample a batch of requests in chunks.

    Args:
      variables: variables of the model.
      requests: one or more requests.
      logits_processor: a chain made by `chain`.
      detokenizers: receive the tokens of each request.
      chunk_size: number of tokens sampled at a time; 0 for as many as possible.
      num_top_logprobs: number of most likely tokens returned per position.
      max_seconds: see `generate`.

    Returns:
      The new text of each request and the speed so far, after every chunk.
    """
    started = time.monotonic()
    has_stop = any(request.stop_strings for request in requests)
    is_checked = has_stop or max_seconds is not None

    def is_done(chunks: list[GeneratedChunk]) -> list[bool]:
      del chunks
      elapsed = time.monotonic() - started
      is_late = max_seconds is not None and elapsed > max_seconds
      return [is_late or bool(x.finish_reason) for x in detokenizers]

    stats = GenerationStats()
    for chunks, stats in self._generator(SAMPLE).stream(
      variables,
      requests,
      logits_processor,
      chunk_size or (_CHECK_INTERVAL if is_checked else 0),
      is_done,
      num_top_logprobs,
    ):
      pairs = zip(detokenizers, chunks, strict=True)
      yield [detokenizer.push(chunk) for detokenizer, chunk in pairs], stats
    # Sequences that ran out of time: what was held back as the start of a stop
    # string is text now.
    end = GeneratedChunk([], [], "length")
    unfinished = [not x.finish_reason for x in detokenizers]
    rest = [detokenizer.push(end) for detokenizer in detokenizers]
    if any(unfinished):
      yield rest, stats

  def _stream_batch(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: LogitsProcessor,
    strategy: DecodingStrategy,
    chunk_size: int,
    max_seconds: float | None,
  ) -> Iterator[TextDelta]:
    detokenizers = [
      StreamingDetokenizer(self.tokenizer, request.stop_strings)
      for request in requests
    ]
    if isinstance(strategy, Sample):
      batches = self.stream_requests(
        variables,
        requests,
        logits_processor,
        detokenizers,
        chunk_size,
        max_seconds=max_seconds,
      )
    else:
      batches = self._complete(
        variables, requests, logits_processor, detokenizers, strategy
      )
    is_finished = [False] * len(requests)
    for texts, stats in batches:
      for index, (text, each) in enumerate(
        zip(texts, detokenizers, strict=True)
      ):
        completion = None
        if each.finish_reason and not is_finished[index]:
          is_finished[index] = True
          completion = Completion(
            each.text,
            each.tokens,
            each.log_probs,
            each.finish_reason,
            each.score,
          )
        if text or completion:
          yield TextDelta(text, index, completion, stats)

  def _complete(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: LogitsProcessor,
    detokenizers: Sequence[StreamingDetokenizer],
    strategy: DecodingStrategy,
  ) -> Iterator[tuple[list[str], GenerationStats]]:
    chunks, stats = self._generator(strategy).complete(
      variables, requests, logits_processor
    )
    pairs = zip(detokenizers, chunks, strict=True)
    yield [detokenizer.push(chunk) for detokenizer, chunk in pairs], stats

  def _build(self, strategy: DecodingStrategy) -> Generator:
    return strategy.build(self._binder, self.tokenizer)

  def encode(self, prompt: str, control_code: str = "") -> np.ndarray:
    """Return the tokens of a prompt; an empty prompt is encoded as `<eos>`.

    Raises:
      UsageError: if it is longer than the model's context, or the training
        text had no such control code.
    """
    tokens = self.tokenizer.encode(prompt)
    if control_code:
      code = find_control_code(control_code, self.tokenizer)
      tokens = np.array([code, *tokens])
    if self._starts_documents or not len(tokens):
      tokens = np.array([self.tokenizer.eos_id, *tokens])
    check_length(self._max_context, tokens)
    return tokens


def _check_strategy(
  strategy: DecodingStrategy,
  params: SamplingParams,
  max_seconds: float | None,
) -> None:
  """Check that arguments of a call go together.

  Raises:
    UsageError: if they do not.
  """
  name = type(strategy).__name__
  if max_seconds is not None and not isinstance(strategy, Sample):
    raise UsageError(
      f"max_seconds={max_seconds} needs strategy=Sample(); {name}() generates "
      "whole sequences."
    )
  is_search = isinstance(strategy, Beam) and strategy.beam_size > 1
  if is_search and not params.temperature:
    raise UsageError(
      f"{name}() with beam_size={strategy.beam_size} compares several tokens, "
      "and temperature=0 leaves one; set temperature=1."
    )
