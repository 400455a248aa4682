# SPDX-License-Identifier: Apache-2.0
"""How likely a model holds texts behind prompts."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.data.tokenizers import PAD
from lmjax.generation.generator import (
  Request,
  RequestBatch,
  bucket,
  check_length,
)
from lmjax.types import Array, PyTree


class ContinuationScorer:
  """Score the tokens of texts behind prompts.

  Args:
    model: keeps the contract of lmjax.models.
    reads_prefix: whether the model reads prompts in both directions.
  """

  def __init__(self, model: nn.Module, reads_prefix: bool = False):
    self._model, self._reads_prefix = model, reads_prefix
    self._read = jax.jit(self._log_probs)

  def __call__(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    texts: Sequence[Sequence[int]],
  ) -> list[list[float]]:
    """Score texts, all in one batch.

    Args:
      variables: the model's variables.
      requests: the prompts, and sources if the model has any.
      texts: tokens behind each prompt.

    Returns:
      The log-probability of each token in nats.

    Raises:
      UsageError: if a text with its prompt is longer than the model's context.
    """
    batch = RequestBatch.of(requests, None)
    rows = [
      np.array([*request.tokens, *text], np.int32)
      for request, text in zip(requests, texts, strict=True)
    ]
    name = "text" if batch.sources_BS is not None else "text with its prompt"
    for row in rows:
      check_length(self._model.max_context, row[1:], name)
    width = bucket(max(map(len, rows)))
    tokens_BT = np.full((len(batch.limit_B), width + 1), PAD, np.int32)
    for number, row in enumerate(rows):
      tokens_BT[number, : len(row)] = row
    begins_B = np.ones(len(tokens_BT), np.int32)
    begins_B[: len(rows)] = [len(request.tokens) for request in requests]
    scores_BT = np.asarray(self._read(variables, batch, tokens_BT, begins_B))
    return [
      scores_BT[number, begin - 1 : len(row) - 1].tolist()
      for number, (begin, row) in enumerate(zip(begins_B, rows, strict=False))
    ]

  def _log_probs(
    self, variables: PyTree, batch: RequestBatch, tokens_BT: Array, begins_B
  ) -> Array:
    options, inputs_BT = {}, tokens_BT[:, :-1]
    memory = batch.encode(self._model, variables)
    if memory is not None:
      options["memory"] = memory
    if self._reads_prefix:
      places_T = jnp.arange(inputs_BT.shape[1])
      options["bidirectional_BT"] = places_T < begins_B[:, None]
    hidden, _ = self._model.apply(variables, inputs_BT, **options)
    return self._model.apply(
      variables, hidden, tokens_BT[:, 1:], method="log_probs"
    )
