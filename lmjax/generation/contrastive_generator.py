# SPDX-License-Identifier: Apache-2.0
"""Contrastive search over tokens."""

import functools
import time
from collections.abc import Sequence

import jax
import numpy as np

from lmjax.decoding.contrastive import ContrastiveTexts, contrastive_search
from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.logits_processors import LogitsProcessor
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


class ContrastiveGenerator:
  """Search contrastively; a Generator. All samples of a prompt are equal.

  Args:
    binder: makes the model.
    pad_id: token of padding.
    stop_token: ends a sequence.
    num_candidates: number of tokens that are compared in each step.
    alpha: weight of the similarity to earlier tokens, from 0 to 1.
  """

  def __init__(
    self,
    binder: ModelBinder,
    pad_id: int,
    stop_token: int,
    num_candidates: int,
    alpha: float,
  ):
    self._binder, self._pad_id = binder, pad_id
    self._num_candidates = num_candidates
    self._search = functools.partial(
      _search,
      num_candidates=num_candidates,
      alpha=alpha,
      stop_token=stop_token,
      pad_token=pad_id,
    )

  def complete(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: LogitsProcessor,
  ) -> Generated:
    """Search for one sequence per request; see Generator."""
    started = time.perf_counter()
    for request in requests:
      check_request(self._binder.max_context, request)
      check_fits(self._binder.max_context, request)
    batch = RequestBatch.of(requests, self._binder.max_context, self._pad_id)
    model = self._binder.bind(
      variables, len(batch.limit_B) * self._num_candidates
    )
    max_tokens = bucket(max(request.num_tokens for request in requests))
    found = jax.device_get(
      self._search(model, batch, logits_processor, num_tokens=max_tokens)
    )
    finish_reasons = [
      "stop" if done else "length" for done in found.done_B[: len(requests)]
    ]
    chunks = make_chunks(
      found.sampled,
      np.zeros_like(found.count_B),
      found.count_B,
      finish_reasons,
    )
    return Generated(chunks, search_stats(requests, chunks, started))


@functools.partial(
  jax.jit,
  static_argnames=("num_tokens", "num_candidates", "stop_token", "pad_token"),
)
def _search(
  model: DecodingModel,
  batch: RequestBatch,
  logits_processor: LogitsProcessor,
  num_tokens: int,
  num_candidates: int,
  alpha: float,
  stop_token: int,
  pad_token: int,
) -> ContrastiveTexts:
  return contrastive_search(
    model.encode_source(batch.sources_BS, batch.source_mask_BS),
    batch.prompt,
    batch.limit_B,
    num_tokens,
    logits_processor,
    num_candidates=num_candidates,
    alpha=alpha,
    stop_token=stop_token,
    pad_token=pad_token,
  )
