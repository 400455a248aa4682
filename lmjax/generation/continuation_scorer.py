# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of given tokens after prompts."""

from collections.abc import Sequence

import jax
import numpy as np

from lmjax.decoding.decoding_model import DecodingModel
from lmjax.generation.generator import ModelBinder
from lmjax.generation.requests import (
  Request,
  RequestBatch,
  bucket,
  check_length,
)
from lmjax.types import Array, PyTree


class ContinuationScorer:
  """Score the tokens of continuations.

  Args:
    binder: makes the model.
    pad_id: token of padding.
  """

  def __init__(self, binder: ModelBinder, pad_id: int):
    self._binder, self._pad_id = binder, pad_id

  def __call__(
    self,
    variables: PyTree,
    requests: Sequence[Request],
    continuations: Sequence[Sequence[int]],
  ) -> list[list[float]]:
    """Score continuations, all in one batch.

    Args:
      variables: variables of the model.
      requests: the prompts, with sources if the model has an encoder.
      continuations: the tokens after each prompt.

    Returns:
      The log-probability of each token in nats.

    Raises:
      UsageError: if a continuation with its prompt is longer than the model's
        context.
    """
    batch = RequestBatch.of(requests, None, self._pad_id)
    rows = [
      np.array([*request.tokens, *tokens], np.int32)
      for request, tokens in zip(requests, continuations, strict=True)
    ]
    name = "text" if batch.sources_BS is not None else "text with its prompt"
    for row in rows:
      check_length(self._binder.max_context, row[1:], name)
    width = bucket(max(map(len, rows)))
    tokens_BT = np.full((len(batch.limit_B), width + 1), self._pad_id, np.int32)
    for index, row in enumerate(rows):
      tokens_BT[index, : len(row)] = row
    prompt_lengths_B = np.ones(len(tokens_BT), np.int32)
    prompt_lengths_B[: len(rows)] = [len(x.tokens) for x in requests]
    model = self._binder.bind_for_scoring(variables)
    log_probs_BT = jax.device_get(
      _score(
        model,
        batch.sources_BS,
        batch.source_mask_BS,
        tokens_BT,
        prompt_lengths_B,
      )
    )
    return [
      log_probs_BT[index, length - 1 : len(row) - 1].tolist()
      for index, (length, row) in enumerate(
        zip(prompt_lengths_B, rows, strict=False)
      )
    ]


@jax.jit
def _score(
  model: DecodingModel,
  sources_BS: Array | None,
  source_mask_BS: Array | None,
  tokens_BT: Array,
  prompt_lengths_B: Array,
) -> Array:
  model = model.encode_source(sources_BS, source_mask_BS)
  return model.log_probs(tokens_BT[:, :-1], tokens_BT[:, 1:], prompt_lengths_B)
