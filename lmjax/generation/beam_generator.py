# SPDX-License-Identifier: Apache-2.0
"""The best texts that beam search finds, in place of texts that are drawn."""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np

from lmjax.data.tokenizers import EOS, PAD
from lmjax.decoding.beam import BeamSearch, Hypotheses, repeat
from lmjax.decoding.coverage import attending_step, covered, uncovered
from lmjax.decoding.filters import Filter
from lmjax.decoding.generate import prefill
from lmjax.errors import UsageError
from lmjax.generation.continuation_scorer import ContinuationScorer
from lmjax.generation.generator import (
  GeneratedChunk,
  Request,
  RequestBatch,
  reading_step,
)
from lmjax.generation.one_shot_generator import OneShotGenerator
from lmjax.types import PyTree


class BeamGenerator(OneShotGenerator):
  """Give the best text to the first sample of a prompt, the next to the second.

  Where fewer texts can be, the last samples are empty.

  Args:
    model: see OneShotGenerator.
    bidirectional_prompt: see OneShotGenerator.
    **settings: of lmjax.decoding.beam.BeamSearch.
  """

  def __init__(
    self, model: nn.Module, bidirectional_prompt: bool = False, **settings
  ):
    super().__init__(model, bidirectional_prompt)
    self._search = BeamSearch(
      num_tokens=1, stop_token=EOS, pad_token=PAD, **settings
    )
    self._score = ContinuationScorer(model, bidirectional_prompt)
    self._run = jax.jit(
      self._find, static_argnames=("num_tokens", "num_return_sequences")
    )

  def decode(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: Filter,
  ) -> list[GeneratedChunk]:
    """Search once for all samples of a prompt; see OneShotGenerator.

    Raises:
      UsageError: if more samples of a prompt are wanted than the beam has, or
        if texts are to cover sources and have none.
    """
    covers = self._search.coverage_penalty
    if covers and requests[0].source is None:
      raise UsageError(
        f"coverage_penalty={covers} is of texts that are written for sources, "
        "by a run of task=seq2seq; leave it out."
      )
    samples = {}
    for place, request in enumerate(requests):
      source = None if request.source is None else tuple(request.source)
      key = request.num_tokens, tuple(request.tokens), source
      samples.setdefault(key, []).append(place)
    most = 1 + max(request.sample for request in requests)
    if most > self._search.beam_size:
      raise UsageError(
        f"num_samples={most} must not exceed beam_size="
        f"{self._search.beam_size}: a beam finds so many texts."
      )
    texts, found_by = [[]] * len(requests), [None] * len(requests)
    for num_tokens in sorted({key[0] for key in samples}):
      places = [own for key, own in samples.items() if key[0] == num_tokens]
      batch = RequestBatch.of([requests[own[0]] for own in places], None)
      found = self._run(variables, batch, logits_processor, num_tokens, most)
      tokens_BNT, scores_BN = map(np.asarray, found)
      for row, own in enumerate(places):
        for place in own:
          rank = requests[place].sample
          if np.isfinite(scores_BN[row, rank]):  # else there is none
            texts[place] = _until_end(tokens_BNT[row, rank])
            found_by[place] = float(scores_BN[row, rank])
    each_log_probs = self._score(variables, requests, texts)
    return [
      GeneratedChunk(
        text,
        log_probs,
        "stop" if text[-1:] in ([], [EOS]) else "length",
        score=score,
      )
      for text, log_probs, score in zip(
        texts, each_log_probs, found_by, strict=True
      )
    ]

  def _find(
    self,
    variables: PyTree,
    batch: RequestBatch,
    logits_processor: Filter,
    num_tokens: int,
    num_return_sequences: int,
  ) -> Hypotheses:
    rows, size = len(batch.limit_B), self._search.beam_size
    model, variables = self._model.for_decoding(variables, rows * size)
    memory = batch.encode(model, variables)
    many = repeat(memory, size)
    capacity = batch.prompt.tokens_BT.shape[1] + num_tokens
    carry = model.initial_carry(rows, capacity)
    search = dataclasses.replace(
      self._search,
      num_tokens=num_tokens,
      num_return_sequences=num_return_sequences,
      logits_processor=logits_processor,
    )
    if search.coverage_penalty:
      carry = uncovered(carry, batch.source_mask_BS)
      search = dataclasses.replace(search, coverage=covered)
      first, step = (
        attending_step(model, variables, each) for each in (memory, many)
      )
    else:
      first = reading_step(model, variables, memory, self._bidirectional_prompt)
      step = reading_step(model, variables, many, bidirectional_prompt=False)
    decode_state = prefill(first, carry, batch.prompt, logits_processor, None)
    return search.behind(
      lambda tokens_M, carry: step(tokens_M[:, None], carry, None), decode_state
    )


def _until_end(tokens_T: np.ndarray) -> list[int]:
  """Leave out what stands behind the end of a text."""
  ends = np.flatnonzero(tokens_T == EOS)
  return tokens_T[: ends[0] + 1].tolist() if len(ends) else tokens_T.tolist()
