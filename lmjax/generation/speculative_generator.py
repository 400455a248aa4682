# SPDX-License-Identifier: Apache-2.0
"""Speculative sampling over tokens: fewer calls, the same distribution."""

import functools
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.generate import prefill
from lmjax.decoding.logits_processors import LogitsProcessor
from lmjax.decoding.speculative import (
  LookupState,
  ModelDraft,
  PromptLookup,
  SpeculativeSamples,
  speculate,
)
from lmjax.generation.generator import ModelBinder
from lmjax.generation.requests import (
  Request,
  RequestBatch,
  bucket,
  check_fits,
  check_request,
)
from lmjax.generation.results import Generated, make_chunks, search_stats
from lmjax.types import PyTree


class DraftModel(NamedTuple):
  """A model that proposes tokens.

  Attributes:
    binder: makes the model.
    variables: its variables.
    name: what users call it.
  """

  binder: ModelBinder
  variables: PyTree
  name: str


class SpeculativeGenerator:
  """Sample with a draft; a Generator. See lmjax.decoding.speculative.

  Args:
    binder: makes the model.
    pad_id: token of padding.
    stop_token: ends a sequence.
    num_draft: number of tokens that are proposed at a time.
    draft: proposes tokens; None for prompt lookup, which copies what followed
      the newest tokens earlier in the text.
  """

  def __init__(
    self,
    binder: ModelBinder,
    pad_id: int,
    stop_token: int,
    num_draft: int,
    draft: DraftModel | None = None,
  ):
    self._binder, self._pad_id, self._draft = binder, pad_id, draft
    self._sample = functools.partial(
      _sample, num_draft=num_draft, stop_token=stop_token, pad_token=pad_id
    )

  def complete(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: LogitsProcessor,
  ) -> Generated:
    """Sample one sequence per request; see Generator.

    Raises:
      UsageError: also if a sequence does not fit into the context of the draft.
    """
    started = time.perf_counter()
    for request in requests:
      check_request(self._binder.max_context, request)
      check_fits(self._binder.max_context, request)
      if self._draft is not None:
        check_fits(self._draft.binder.max_context, request, self._draft.name)
    batch = RequestBatch.of(requests, self._binder.max_context, self._pad_id)
    rows, draft = len(batch.limit_B), None
    if self._draft is not None:
      draft = self._draft.binder.bind(self._draft.variables, rows)
    found = jax.device_get(
      self._sample(
        self._binder.bind(variables, rows),
        draft,
        batch,
        logits_processor,
        num_tokens=bucket(max(request.num_tokens for request in requests)),
      )
    )
    number = len(requests)
    count_B, calls_B = found.count_B[:number], found.calls_B[:number]
    finish_reasons = [
      "stop" if done else "length" for done in found.done_B[:number]
    ]
    chunks = make_chunks(
      found.sampled, np.zeros_like(count_B), count_B, finish_reasons
    )
    # The first token of each sequence comes from the prefill.
    calls = float(calls_B.sum())
    tokens_per_call = float((count_B - 1).sum()) / calls if calls else 1.0
    return Generated(
      chunks, search_stats(requests, chunks, started, tokens_per_call)
    )


@functools.partial(
  jax.jit,
  static_argnames=("num_tokens", "num_draft", "stop_token", "pad_token"),
)
def _sample(
  model: DecodingModel,
  draft_model: DecodingModel | None,
  batch: RequestBatch,
  logits_processor: LogitsProcessor,
  num_tokens: int,
  num_draft: int,
  stop_token: int,
  pad_token: int,
) -> SpeculativeSamples:
  prompt = batch.prompt
  spare = num_tokens + num_draft + 1
  capacity = prompt.tokens_BT.shape[1] + spare
  model = model.encode_source(batch.sources_BS, batch.source_mask_BS)
  decode_state = prefill(model, prompt, logits_processor, capacity, None)
  if draft_model is None:
    draft, draft_state = PromptLookup(), LookupState.of(prompt, spare)
  else:
    draft = ModelDraft(draft_model)
    draft_state = prefill(
      draft_model, prompt, logits_processor, capacity, None
    ).carry
  return speculate(
    model,
    decode_state,
    draft,
    draft_state,
    batch.keys_B,
    batch.limit_B,
    num_tokens,
    num_draft,
    logits_processor,
    stop_token=stop_token,
    pad_token=pad_token,
  )
