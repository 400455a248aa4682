# SPDX-License-Identifier: Apache-2.0
"""Contrastive search: likely tokens whose context is unlike earlier ones.

Su et al. 2022 (arXiv:2202.06417).

Dimension letters:

    M  rows of the search: batch × candidates
    P  positions of the prompt and the continuation
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.decoding.beam import repeat
from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.generate import SampledTokens
from lmjax.decoding.logits_processors import LogitsProcessor, Prompt
from lmjax.errors import UsageError
from lmjax.types import Array, PyTree


class ContrastiveTexts(NamedTuple):
  """Sequences found by contrastive search.

  Attributes:
    sampled: their tokens, and log-probabilities before logits processors.
    count_B: number of tokens of each sequence.
    done_B: whether it ended with the stop token.
  """

  sampled: SampledTokens
  count_B: Array
  done_B: Array


class _Invariants(NamedTuple):
  """What does not change while the loop runs; see `contrastive_search`."""

  model: DecodingModel
  limit_B: Array
  logits_processor: LogitsProcessor
  num_candidates: int
  alpha: Array | float
  prompt_length: int
  stop_token: int
  pad_token: int


class _Loop(NamedTuple):
  """State of the loop of `contrastive_search`.

  Attributes:
    index: number of tokens generated so far.
    texts: the sequences so far.
    logits_BV: logits of the next token.
    hidden_BPD: hidden states of all tokens so far, scaled to length 1; zeros
      at padding and after the last token.
    carry: carry of the model.
    processor_state: state of the logits processor.
  """

  index: Array
  texts: ContrastiveTexts
  logits_BV: Array
  hidden_BPD: Array
  carry: PyTree
  processor_state: PyTree


def contrastive_search(
  model: DecodingModel,
  prompt: Prompt,
  limit_B: Array,
  num_tokens: int,
  logits_processor: LogitsProcessor,
  *,
  num_candidates: int,
  alpha: Array | float,
  stop_token: int,
  pad_token: int,
) -> ContrastiveTexts:
  """Generate until all sequences have ended.

  Among the K most likely tokens v, the one with the highest
  (1 - α) · p(v) - α · max cos(h(v), h(x)) is chosen, where h are hidden states
  and x are all tokens of the text. The search is deterministic, and α = 0 is
  greedy search.

  Args:
    model: must have one hidden vector per token.
    prompt: at least one token per row.
    limit_B: maximum number of new tokens per row.
    num_tokens: N, the maximum of the limits.
    logits_processor: maps logits to those of p; tokens that it sets to −∞ are
      not generated.
    num_candidates: K, number of tokens that are compared.
    alpha: α, from 0 to 1.
    stop_token: ends a sequence.
    pad_token: fills rows after their end.

  Raises:
    UsageError: if the model has no hidden vectors.
  """
  batch, time = prompt.tokens_BT.shape
  carry = model.initial_carry(batch, time + num_tokens)
  hidden, carry = model.forward(prompt.tokens_BT, carry, prompt.resets())
  logits_BV = model.last_logits(hidden)
  hidden_BTD = _normalize(hidden) * prompt.is_text()[..., None]
  blank_BN = jnp.full((batch, num_tokens), pad_token, jnp.int32)
  zero_B = jnp.zeros(batch, jnp.int32)
  sampled = SampledTokens(blank_BN, jnp.zeros(blank_BN.shape))
  invariants = _Invariants(
    model,
    limit_B,
    logits_processor,
    min(num_candidates, logits_BV.shape[-1]),
    alpha,
    time,
    stop_token,
    pad_token,
  )
  loop = _Loop(
    jnp.int32(0),
    ContrastiveTexts(sampled, zero_B, zero_B > 0),
    logits_BV,
    jnp.pad(hidden_BTD, ((0, 0), (0, num_tokens), (0, 0))),
    carry,
    logits_processor.start(prompt, logits_BV.shape[-1]),
  )
  return jax.lax.while_loop(
    lambda loop: (
      (loop.index < num_tokens) & _is_active(invariants, loop.texts).any()
    ),
    functools.partial(_advance, invariants),
    loop,
  ).texts


def _is_active(invariants: _Invariants, texts: ContrastiveTexts) -> Array:
  return ~texts.done_B & (texts.count_B < invariants.limit_B)


def _advance(invariants: _Invariants, loop: _Loop) -> _Loop:
  """Apply the model to all candidates and keep the best of each row."""
  model, number = invariants.model, invariants.num_candidates
  processor, time = invariants.logits_processor, invariants.prompt_length
  batch = len(loop.logits_BV)
  logits_BV = processor(loop.logits_BV, loop.processor_state)
  log_prob_BO, token_BO = jax.lax.top_k(jax.nn.log_softmax(logits_BV), number)
  # Candidate k of row b is row b · K + k of this call.
  hidden, carry = model.repeat(number).forward(
    token_BO.reshape(-1, 1), repeat(loop.carry, number)
  )
  logits_MV = model.last_logits(hidden)
  hidden_BOD = _normalize(hidden).reshape(batch, number, -1)
  similarity_BO = _max_similarity(
    hidden_BOD, loop.hidden_BPD, time + loop.index
  )
  alpha = invariants.alpha
  score_BO = (1 - alpha) * jnp.exp(log_prob_BO) - alpha * similarity_BO
  score_BO = jnp.where(log_prob_BO > -jnp.inf, score_BO, -jnp.inf)
  best_B = jnp.argmax(score_BO, axis=1)
  rows_B = jnp.arange(batch)
  token_B = token_BO[rows_B, best_B]
  selected_B = rows_B * number + best_B
  next_logits_BV, carry = jax.tree.map(
    lambda leaf: leaf[selected_B], (logits_MV, carry)
  )
  return _Loop(
    loop.index + 1,
    _append(invariants, loop, token_B),
    next_logits_BV,
    loop.hidden_BPD.at[:, time + loop.index].set(hidden_BOD[rows_B, best_B]),
    carry,
    processor.advance(
      loop.processor_state, token_B, log_prob_BO[rows_B, best_B]
    ),
  )


def _append(
  invariants: _Invariants, loop: _Loop, token_B: Array
) -> ContrastiveTexts:
  """Append a token to each row that has not ended."""
  texts = loop.texts
  active_B = _is_active(invariants, texts)
  log_probs_BV = jax.nn.log_softmax(loop.logits_BV)
  log_prob_B = log_probs_BV[jnp.arange(len(token_B)), token_B]
  token_B = jnp.where(active_B, token_B, invariants.pad_token)
  sampled = SampledTokens(
    texts.sampled.tokens_BN.at[:, loop.index].set(token_B),
    texts.sampled.log_probs_BN.at[:, loop.index].set(
      jnp.where(active_B, log_prob_B, 0.0)
    ),
  )
  stops_B = active_B & (token_B == invariants.stop_token)
  return ContrastiveTexts(
    sampled, texts.count_B + active_B, texts.done_B | stops_B
  )


def _max_similarity(
  hidden_BOD: Array, hidden_BPD: Array, length: Array
) -> Array:
  """Return the highest cosine of each candidate to any token so far, [B, K]."""
  is_text_1P = jnp.arange(hidden_BPD.shape[1])[None] < length
  is_text_BP = is_text_1P & jnp.any(hidden_BPD != 0, axis=-1)
  cosine_BOP = jnp.einsum("BOD,BPD->BOP", hidden_BOD, hidden_BPD)
  return jnp.max(cosine_BOP, axis=-1, initial=-1.0, where=is_text_BP[:, None])


def _normalize(hidden: PyTree) -> Array:
  """Scale hidden states to length 1, in float32.

  Raises:
    UsageError: if the model has no hidden vector per token, as n-gram models.
  """
  if not isinstance(hidden, jax.Array) or not jnp.issubdtype(
    hidden.dtype, jnp.floating
  ):
    raise UsageError(
      "contrastive search compares hidden vectors, and this model has none; "
      "give a run of another model, or use another decoding strategy."
    )
  hidden = hidden.astype(jnp.float32)
  length = jnp.linalg.norm(hidden, axis=-1, keepdims=True)
  return hidden / jnp.maximum(length, 1e-12)
