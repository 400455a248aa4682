# SPDX-License-Identifier: Apache-2.0
"""Texts that contrastive search writes, in place of texts that are drawn."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.data.tokenizers import EOS, PAD
from lmjax.decoding.beam import repeat
from lmjax.decoding.contrastive import Contrasted, contrastive_search
from lmjax.decoding.filters import Filter
from lmjax.errors import UsageError
from lmjax.generation.generator import (
  GeneratedChunk,
  Request,
  RequestBatch,
  bucket,
)
from lmjax.generation.one_shot_generator import OneShotGenerator, pieces_of
from lmjax.types import Array, PyTree


class ContrastiveGenerator(OneShotGenerator):
  """Search contrastively; see lmjax.decoding.contrastive.

  Args:
    model: see OneShotGenerator.
    bidirectional_prompt: see OneShotGenerator.
    num_candidates: how many tokens are compared in each step.
    alpha: how much similarity to the text counts, from 0 to 1.
  """

  def __init__(
    self,
    model: nn.Module,
    bidirectional_prompt: bool = False,
    num_candidates: int = 4,
    alpha: float = 0.6,
  ):
    super().__init__(model, bidirectional_prompt)
    self._num_candidates, self._alpha = num_candidates, alpha
    self._run = jax.jit(self._find, static_argnames="num_tokens")

  def decode(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    logits_processor: Filter,
  ) -> list[GeneratedChunk]:
    """Write a text for each request; all samples of a prompt are alike."""
    batch = RequestBatch.of(requests, self._model.max_context)
    most = bucket(max(request.num_tokens for request in requests))
    found = self._run(variables, batch, logits_processor, num_tokens=most)
    sampled, count_B, done_B = jax.tree.map(
      lambda leaf: np.asarray(leaf)[: len(requests)], found
    )
    return pieces_of(sampled.tokens_BN, sampled.log_probs_BN, count_B, done_B)

  def _find(
    self,
    variables: PyTree,
    batch: RequestBatch,
    logits_processor: Filter,
    num_tokens: int,
  ) -> Contrasted:
    rows, number = len(batch.limit_B), self._num_candidates
    model, variables = self._model.for_decoding(variables, rows * number)
    memory = batch.encode(model, variables)

    def step(
      tokens_BT: Array, carry: PyTree, resets_BT: Array | None
    ) -> tuple[Array, Array, PyTree]:
      options, times = {}, len(tokens_BT) // rows
      if memory is not None:
        options["memory"] = repeat(memory, times)
      if self._bidirectional_prompt and tokens_BT.shape[1] > 1:
        options["bidirectional_BT"] = jnp.ones(tokens_BT.shape, bool)
      hidden, carry = model.apply(
        variables, tokens_BT, carry, resets_BT, **options
      )
      last = jax.tree.map(lambda leaf: leaf[:, -1:], hidden)
      logits_B1V = model.apply(variables, last, method="logits")
      return logits_B1V[:, 0], _vectors(hidden), carry

    capacity = batch.prompt.tokens_BT.shape[1] + num_tokens
    return contrastive_search(
      step,
      model.initial_carry(rows, capacity),
      batch.prompt,
      batch.limit_B,
      num_tokens,
      logits_processor,
      num_candidates=number,
      alpha=self._alpha,
      stop_token=EOS,
      pad_token=PAD,
    )


def _vectors(hidden: PyTree) -> Array:
  """Return hidden vectors, of models that have one a token.

  Raises:
    UsageError: if the model has none.
  """
  if not isinstance(hidden, jax.Array) or not jnp.issubdtype(
    hidden.dtype, jnp.floating
  ):
    raise UsageError(
      "contrastive search compares hidden vectors, and this model has none; "
      "give a run of another model, or leave contrastive_k at 0."
    )
  return hidden
