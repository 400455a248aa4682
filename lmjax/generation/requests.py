# SPDX-License-Identifier: Apache-2.0
"""Requests for generated tokens, and their padding to batches of few shapes."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from lmjax.decoding.logits_processors import Prompt
from lmjax.errors import UsageError, check_positive
from lmjax.types import Array

_SMALLEST = 16  # tokens of a prompt; shorter prompts take as long


class Request(NamedTuple):
  """A prompt to continue.

  Attributes:
    tokens: at least one token.
    num_tokens: maximum number of new tokens.
    seed: the same seed samples the same tokens, whatever else is in the batch.
    sample: index of the sample; samples of one prompt differ.
    source: source tokens of an encoder–decoder; None for other models.
    control_code: the control code among the tokens, which also starts a
      refilled context; −1 for none.
    stop_strings: strings that end the text.
  """

  tokens: np.ndarray
  num_tokens: int
  seed: int = 0
  sample: int = 0
  source: np.ndarray | None = None
  control_code: int = -1
  stop_strings: tuple[str, ...] = ()

  @property
  def prompt_length(self) -> int:
    """Number of tokens that are processed before the first is sampled."""
    return len(self.tokens) + (0 if self.source is None else len(self.source))


class RequestBatch(NamedTuple):
  """A padded batch of requests; padding rows generate no tokens.

  Attributes:
    prompt: left-padded prompts.
    keys_B: random key of each row.
    limit_B: maximum number of new tokens; 0 for padding rows.
    control_code_B: control code of each row; −1 for none.
    sources_BS: sources, padded at the end; None for models without an encoder.
    source_mask_BS: False at the padding of sources.
  """

  prompt: Prompt
  keys_B: Array
  limit_B: np.ndarray
  control_code_B: np.ndarray
  sources_BS: np.ndarray | None
  source_mask_BS: np.ndarray | None

  @classmethod
  def of(
    cls, requests: Sequence[Request], max_context: int | None, pad_id: int
  ) -> "RequestBatch":
    """Pad requests.

    Args:
      requests: at least one; all have a source, or none.
      max_context: the largest useful length of a prompt; None for no limit.
      pad_id: token of padding.
    """
    # Rows and lengths are rounded up, so that few shapes are compiled.
    rows = [*requests]
    rows += [requests[0]] * (bucket_rows(len(rows)) - len(rows))
    length = bucket(max(len(row.tokens) for row in rows))
    length = length if max_context is None else min(length, max_context)
    tokens_BT = np.full((len(rows), length), pad_id, np.int32)
    for index, row in enumerate(rows):
      tokens_BT[index, length - len(row.tokens) :] = row.tokens
    starts_B = np.array([length - len(row.tokens) for row in rows], np.int32)
    limits = [row.num_tokens for row in requests]
    limits += [0] * (len(rows) - len(requests))
    seeds = np.array([row.seed % 2**32 for row in rows], np.uint32)
    samples = np.array([row.sample for row in rows], np.uint32)
    sources_BS = mask_BS = None
    if requests[0].source is not None:
      longest = bucket(max(len(row.source) for row in rows))
      sources_BS = np.full((len(rows), longest), pad_id, np.int32)
      mask_BS = np.zeros((len(rows), longest), bool)
      for index, row in enumerate(rows):
        sources_BS[index, : len(row.source)] = row.source
        mask_BS[index, : len(row.source)] = True
    return cls(
      Prompt(tokens_BT, starts_B),
      _keys(seeds, samples),
      np.array(limits, np.int32),
      np.array([row.control_code for row in rows], np.int32),
      sources_BS,
      mask_BS,
    )


@jax.jit
def _keys(seeds_B: Array, samples_B: Array) -> Array:
  fold_in = jax.vmap(jax.random.fold_in)
  return fold_in(jax.vmap(jax.random.key)(seeds_B), samples_B)


def bucket(length: int) -> int:
  """Round a length up to one of four sizes per octave.

  >>> [bucket(n) for n in (1, 2, 33, 200, 257)]
  [1, 16, 40, 224, 320]
  """
  if length <= _SMALLEST:
    return _SMALLEST if length > 1 else length
  size = 1 << max((length - 1).bit_length() - 3, 3)
  return -(-length // size) * size


def bucket_rows(number: int) -> int:
  """Round a number of rows up to a power of two.

  >>> [bucket_rows(n) for n in (1, 3, 64)]
  [1, 4, 64]
  """
  return 1 << (number - 1).bit_length()


def check_request(max_context: int | None, request: Request) -> None:
  """Check the number of tokens and the length of the prompt.

  Raises:
    UsageError: if the number is out of range, or the prompt too long.
  """
  check_positive(num_tokens=request.num_tokens)
  check_length(max_context, request.tokens)


def check_length(
  max_context: int | None, tokens: np.ndarray, name: str = "prompt"
) -> None:
  """Check that a prompt, or what `name` calls it, fits into the context.

  Raises:
    UsageError: if it does not.
  """
  if max_context is not None and len(tokens) > max_context:
    raise UsageError(
      f"the {name} has {len(tokens)} tokens and the model's context holds "
      f"{max_context}; shorten the {name}."
    )


def check_fits(
  max_context: int | None, request: Request, name: str = "the model"
) -> None:
  """Check that the context holds a prompt and all tokens after it.

  Args:
    max_context: maximum number of tokens; None for no limit.
    request: the request.
    name: the model, for the message.

  Raises:
    UsageError: if it does not.
  """
  # The model is never applied to the last token.
  longest = len(request.tokens) + request.num_tokens - 1
  if max_context is not None and longest > max_context:
    raise UsageError(
      f"the prompt of {len(request.tokens)} tokens and num_tokens="
      f"{request.num_tokens} exceed the context of {name}, which holds "
      f"{max_context} tokens; reduce num_tokens."
    )
