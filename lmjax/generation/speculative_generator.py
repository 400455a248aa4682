# SPDX-License-Identifier: Apache-2.0
"""Texts that are drawn with the help of a draft: fewer calls, the same law."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np

from lmjax.data.tokenizers import EOS, PAD
from lmjax.decoding import speculative
from lmjax.decoding.filters import Filter
from lmjax.decoding.generate import prefill
from lmjax.decoding.speculative import (
  ModelDraft,
  PromptLookup,
  Speculated,
  Text,
  speculate,
)
from lmjax.generation.generator import (
  GeneratedChunk,
  Request,
  RequestBatch,
  bucket,
  check_length,
  reading_step,
)
from lmjax.generation.one_shot_generator import (
  OneShotGenerator,
  check_fits,
  pieces_of,
)
from lmjax.types import Array, PyTree


class SpeculativeGenerator(OneShotGenerator):
  """Draw texts; see lmjax.decoding.speculative.

  Args:
    model: see OneShotGenerator.
    bidirectional_prompt: see OneShotGenerator.
    draft: a model that proposes tokens, and its variables; None to look them up
      in the text so far.
    num_draft: how many tokens are proposed at a time.
  """

  def __init__(
    self,
    model: nn.Module,
    bidirectional_prompt: bool = False,
    draft: tuple[nn.Module, PyTree] | None = None,
    num_draft: int = 4,
  ):
    super().__init__(model, bidirectional_prompt)
    self._num_draft = num_draft
    self._draft, self._draft_variables = draft or (None, None)
    self._run = jax.jit(self._decode, static_argnames="num_tokens")

  def decode(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: Filter,
  ) -> list[GeneratedChunk]:
    """Draw a text for each request; see OneShotGenerator."""
    if self._draft is not None:
      for request in requests:
        check_length(self._draft.max_context, request.tokens)
        check_fits(self._draft.max_context, request)
    batch = RequestBatch.of(requests, self._model.max_context)
    most = bucket(max(request.num_tokens for request in requests))
    written = self._run(
      variables, self._draft_variables, batch, logits_processor, num_tokens=most
    )
    sampled, count_B, done_B, calls_B = jax.tree.map(
      lambda leaf: np.asarray(leaf)[: len(requests)], written
    )
    # The first token of each comes of reading the prompt.
    if calls_B.sum():
      self._tokens_per_call = float((count_B - 1).sum() / calls_B.sum())
    return pieces_of(sampled.tokens_BN, sampled.log_probs_BN, count_B, done_B)

  def _decode(
    self,
    variables: PyTree,
    draft_variables: PyTree,
    batch: RequestBatch,
    logits_processor: Filter,
    num_tokens: int,
  ) -> Speculated:
    rows, prompt = len(batch.limit_B), batch.prompt
    spare = num_tokens + self._num_draft + 1
    capacity = prompt.tokens_BT.shape[1] + spare
    model, variables = self._model.for_decoding(variables, rows)
    memory = batch.encode(model, variables)
    step = reading_step(model, variables, memory, self._bidirectional_prompt)
    carry = model.initial_carry(rows, capacity)
    decode_state = prefill(step, carry, prompt, logits_processor, None)
    if self._draft is None:
      draft, known = PromptLookup(), Text.of(prompt, spare)
    else:
      other, others = self._draft.for_decoding(draft_variables, rows)
      step = reading_step(other, others, None, bidirectional_prompt=False)
      carry = other.initial_carry(rows, capacity)
      known = prefill(step, carry, prompt, logits_processor, None).carry
      draft = ModelDraft(_ahead(other, others, None))
    return speculate(
      _ahead(model, variables, memory),
      decode_state,
      draft,
      known,
      batch.keys_B,
      batch.limit_B,
      num_tokens,
      self._num_draft,
      logits_processor,
      stop_token=EOS,
      pad_token=PAD,
    )


def _ahead(
  model: nn.Module, variables: PyTree, memory: PyTree
) -> speculative.Model:
  options = {} if memory is None else dict(memory=memory)

  def extend(tokens_BT: Array, carry: PyTree) -> tuple[Array, PyTree, PyTree]:
    hidden, carry, marks = model.apply(
      variables, tokens_BT, carry, **options, method="extend"
    )
    return model.apply(variables, hidden, method="logits"), carry, marks

  return speculative.Model(extend, model.rollback)
