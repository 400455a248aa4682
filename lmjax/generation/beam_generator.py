# SPDX-License-Identifier: Apache-2.0
"""Beam search over tokens."""

import dataclasses
import functools
import time
from collections.abc import Sequence

import jax
import numpy as np

from lmjax.decoding.beam import BeamSearch, Hypotheses
from lmjax.decoding.coverage import CoverageModel, coverage
from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.generate import prefill
from lmjax.decoding.logits_processors import LogitsProcessor
from lmjax.errors import UsageError
from lmjax.generation.continuation_scorer import ContinuationScorer
from lmjax.generation.generator import ModelBinder
from lmjax.generation.requests import (
  Request,
  RequestBatch,
  check_fits,
  check_request,
)
from lmjax.generation.results import Generated, GeneratedChunk, search_stats
from lmjax.types import PyTree


class BeamGenerator:
  """Search for the most probable sequences; a Generator.

  Sample i of a prompt is its sequence with the i-th highest score. If there are
  fewer sequences, the last samples are empty.

  Args:
    binder: makes the model.
    search: the search; `num_tokens` and the logits processor are those of the
      requests.
  """

  def __init__(self, binder: ModelBinder, search: BeamSearch):
    self._binder, self._search = binder, search
    self._scorer = ContinuationScorer(binder, search.pad_token)

  def complete(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: LogitsProcessor,
  ) -> Generated:
    """Search once for all samples of a prompt; see Generator.

    Raises:
      UsageError: also if there are more samples of a prompt than the beam has
        hypotheses, or if coverage is scored without sources.
    """
    started = time.perf_counter()
    num_samples = self._check(requests)
    tokens, scores = [[]] * len(requests), [None] * len(requests)
    groups = _group_samples(requests)
    for num_tokens in sorted({key[0] for key in groups}):
      indices = [own for key, own in groups.items() if key[0] == num_tokens]
      batch = RequestBatch.of(
        [requests[own[0]] for own in indices], None, self._search.pad_token
      )
      model = self._binder.bind(
        variables, len(batch.limit_B) * self._search.beam_size
      )
      search = dataclasses.replace(
        self._search,
        num_tokens=num_tokens,
        num_return_sequences=num_samples,
      )
      found = jax.device_get(_search(model, batch, logits_processor, search))
      for row, own in enumerate(indices):
        for index in own:
          sample = requests[index].sample
          if np.isfinite(found.scores_BN[row, sample]):
            tokens[index] = self._until_stop(found.tokens_BNT[row, sample])
            scores[index] = float(found.scores_BN[row, sample])
    log_probs = self._scorer(variables, requests, tokens)
    stop = self._search.stop_token
    chunks = [
      GeneratedChunk(
        tokens[index],
        log_probs[index],
        "stop" if tokens[index][-1:] in ([], [stop]) else "length",
        score=scores[index],
      )
      for index in range(len(requests))
    ]
    return Generated(chunks, search_stats(requests, chunks, started))

  def _check(self, requests: Sequence[Request]) -> int:
    """Check requests; return the number of samples per prompt."""
    for request in requests:
      check_request(self._binder.max_context, request)
      check_fits(self._binder.max_context, request)
    penalty = self._search.coverage_penalty
    if penalty and requests[0].source is None:
      raise UsageError(
        f"coverage_penalty={penalty} needs source texts, which only runs of "
        "task=seq2seq have; set coverage_penalty=0."
      )
    num_samples = 1 + max(request.sample for request in requests)
    if num_samples > self._search.beam_size:
      raise UsageError(
        f"num_samples={num_samples} must not exceed beam_size="
        f"{self._search.beam_size}: a beam finds no more sequences."
      )
    return num_samples

  def _until_stop(self, tokens_T: np.ndarray) -> list[int]:
    """Remove the padding after the end of a sequence."""
    ends = np.flatnonzero(tokens_T == self._search.stop_token)
    return tokens_T[: ends[0] + 1].tolist() if len(ends) else tokens_T.tolist()


def _group_samples(requests: Sequence[Request]) -> dict[tuple, list[int]]:
  """Return the indices of requests that differ in their sample only."""
  groups = {}
  for index, request in enumerate(requests):
    source = None if request.source is None else tuple(request.source)
    key = request.num_tokens, tuple(request.tokens), source
    groups.setdefault(key, []).append(index)
  return groups


@functools.partial(jax.jit, static_argnames="search")
def _search(
  model: DecodingModel,
  batch: RequestBatch,
  logits_processor: LogitsProcessor,
  search: BeamSearch,
) -> Hypotheses:
  """Search for sequences after the prompts of a batch."""
  search = dataclasses.replace(search, logits_processor=logits_processor)
  model = model.encode_source(batch.sources_BS, batch.source_mask_BS)
  if search.coverage_penalty:
    model = CoverageModel.of(model)
    search = dataclasses.replace(search, coverage=coverage)
  capacity = batch.prompt.tokens_BT.shape[1] + search.num_tokens
  decode_state = prefill(model, batch.prompt, logits_processor, capacity, None)
  step = model.repeat(search.beam_size).decode_step
  return search.continue_from(step, decode_state)
