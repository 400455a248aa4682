# SPDX-License-Identifier: Apache-2.0
"""Sampling token by token."""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from lmjax.decoding import generate
from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.generate import DecodeState, SampledTokens
from lmjax.decoding.logits_processors import LogitsProcessor
from lmjax.generation.generator import DoneCheck, ModelBinder
from lmjax.generation.requests import (
  Request,
  RequestBatch,
  bucket,
  check_request,
)
from lmjax.generation.results import Generated, GenerationStats, make_chunks
from lmjax.types import Array, PyTree


class SampleGenerator:
  """Sample tokens from a model; a StreamingGenerator.

  Args:
    binder: makes the model.
    pad_id: token of padding.
    stop_tokens: a sequence ends after any of these.
  """

  def __init__(
    self, binder: ModelBinder, pad_id: int, stop_tokens: tuple[int, ...]
  ):
    self._binder, self._pad_id = binder, pad_id
    self._stop_tokens = stop_tokens

  def complete(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: LogitsProcessor,
  ) -> Generated:
    """Sample whole sequences; see Generator."""
    (generated,) = self.stream(variables, requests, logits_processor)
    return generated

  def stream(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: LogitsProcessor,
    chunk_size: int = 0,
    is_done: DoneCheck | None = None,
    num_top_logprobs: int = 0,
  ) -> Iterator[Generated]:
    """Sample sequences in chunks; see StreamingGenerator."""
    for request in requests:
      check_request(self._binder.max_context, request)
    started = time.perf_counter()
    max_context = self._binder.max_context
    batch = RequestBatch.of(requests, max_context, self._pad_id)
    model = self._binder.bind(variables, len(batch.limit_B))
    max_tokens = bucket(max(request.num_tokens for request in requests))
    capacity = batch.prompt.tokens_BT.shape[1] + max_tokens
    if max_context is not None:
      capacity = min(capacity, max_context)
      longest = max(len(r.tokens) + r.num_tokens for r in requests)
      if longest <= max_context:
        max_context = None  # the simpler program, without refills
    decode_state, memory = jax.block_until_ready(
      _prefill(model, batch, logits_processor, capacity, max_context)
    )
    stats = GenerationStats(
      sum(request.prompt_length for request in requests),
      time.perf_counter() - started,
    )
    model = dataclasses.replace(
      model, memory=memory, source_mask_BS=batch.source_mask_BS
    )
    count_B = np.zeros(len(batch.limit_B), int)
    ended_B = np.zeros(len(batch.limit_B), bool)
    while True:
      started = time.perf_counter()
      sampled, decode_state = _decode(
        model,
        decode_state,
        ended_B,
        batch.keys_B,
        batch.limit_B,
        batch.control_code_B,
        logits_processor,
        num_tokens=chunk_size or max_tokens,
        max_context=max_context,
        num_top_logprobs=num_top_logprobs,
        stop_tokens=self._stop_tokens,
        pad_token=self._pad_id,
      )
      start_B, (count_B, stopped_B) = (
        count_B,
        jax.device_get((decode_state.count_B, decode_state.done_B)),
      )
      at_limit_B = count_B >= batch.limit_B
      finish_reasons = [
        "stop" if stopped_B[row] else "length" if at_limit_B[row] else ""
        for row in range(len(requests))
      ]
      chunks = make_chunks(
        jax.device_get(sampled), start_B, count_B, finish_reasons
      )
      seconds = stats.decode_seconds + time.perf_counter() - started
      stats = stats._replace(
        new_tokens=stats.new_tokens + sum(len(x.tokens) for x in chunks),
        decode_seconds=seconds,
        first_seconds=stats.first_seconds or stats.prefill_seconds + seconds,
      )
      yield Generated(chunks, stats)
      if is_done is not None:
        ended_B[: len(requests)] = is_done(chunks)
      if (stopped_B | ended_B | at_limit_B).all():
        return


# These are functions of the module, not methods, so that all generators of a
# model share their compiled programs.
@functools.partial(jax.jit, static_argnames=("capacity", "max_context"))
def _prefill(
  model: DecodingModel,
  batch: RequestBatch,
  logits_processor: LogitsProcessor,
  capacity: int,
  max_context: int | None,
) -> tuple[DecodeState, PyTree]:
  """Return the state after the prompts, and the encoded sources."""
  model = model.encode_source(batch.sources_BS, batch.source_mask_BS)
  decode_state = generate.prefill(
    model, batch.prompt, logits_processor, capacity, max_context
  )
  return decode_state, model.memory


@functools.partial(
  jax.jit,
  static_argnames=(
    "num_tokens",
    "max_context",
    "num_top_logprobs",
    "stop_tokens",
    "pad_token",
  ),
  # The caches are the largest arrays, and the old state is not used again.
  donate_argnames="decode_state",
)
def _decode(
  model: DecodingModel,
  decode_state: DecodeState,
  ended_B: Array,
  keys_B: Array,
  limit_B: Array,
  control_code_B: Array,
  logits_processor: LogitsProcessor,
  num_tokens: int,
  max_context: int | None,
  num_top_logprobs: int,
  stop_tokens: tuple[int, ...],
  pad_token: int,
) -> tuple[SampledTokens, DecodeState]:
  return generate.decode(
    model,
    decode_state._replace(done_B=decode_state.done_B | ended_B),
    keys_B,
    limit_B,
    num_tokens,
    logits_processor,
    stop_tokens=stop_tokens,
    pad_token=pad_token,
    max_context=max_context,
    control_code_B=control_code_B,
    num_top_logprobs=num_top_logprobs,
  )
