# SPDX-License-Identifier: Apache-2.0
"""Contrastive search: likely tokens that do not repeat what was said."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.decoding.beam import repeat
from lmjax.decoding.filters import Filter, Prompt
from lmjax.decoding.generate import SampledTokens
from lmjax.types import Array, PyTree

# (tokens_BT, carry, resets_BT or None) →
# (logits_BV behind the last token, hidden_BTD of all, carry)
Step = Callable[..., tuple[Array, Array, PyTree]]


class Contrasted(NamedTuple):
  """Texts that were written.

  Attributes:
    sampled: their tokens, and log-probabilities before any filter.
    count_B: how many tokens each has.
    done_B: whether it has stopped.
  """

  sampled: SampledTokens
  count_B: Array
  done_B: Array


class _Loop(NamedTuple):
  """Texts that are being written; seen_BLD has vectors of length 1, or 0."""

  index: Array
  found: Contrasted
  logits_BV: Array
  seen_BLD: Array
  carry: PyTree
  state: PyTree


def contrastive_search(
  step: Step,
  carry: PyTree,
  prompt: Prompt,
  limit_B: Array,
  num_tokens: int,
  logits_processor: Filter,
  *,
  num_candidates: int,
  alpha: Array | float,
  stop_token: int,
  pad_token: int,
) -> Contrasted:
  """Write until all texts have ended.

  Su et al. 2022 (arXiv:2202.06417). Of the most likely tokens v that is chosen
  which has the highest (1 - α) · p(v) - α · max cos(h(v), h(x)) over all tokens
  x of the text, h being hidden vectors. Nothing is drawn at random, and α = 0
  is greedy search.

  Args:
    step: see above; it reads K candidates a text, too, in rows b · K + k.
    carry: an empty one of B rows, with room for prompts and new tokens.
    prompt: at least one token each.
    limit_B: how many tokens each text has at most.
    num_tokens: N, the highest of the limits.
    logits_processor: turns logits into those of p; tokens that it sets to −∞
      are not generated.
    num_candidates: K, how many tokens are compared.
    alpha: α, from 0 to 1.
    stop_token: ends a text.
    pad_token: what follows behind the end.
  """
  batch, time = prompt.tokens_BT.shape
  logits_BV, hidden_BTD, carry = step(prompt.tokens_BT, carry, prompt.resets())
  number = min(num_candidates, logits_BV.shape[-1])
  seen_BTD = _unit(hidden_BTD) * prompt.is_text()[..., None]
  seen_BLD = jnp.pad(seen_BTD, ((0, 0), (0, num_tokens), (0, 0)))

  def is_active(found: Contrasted) -> Array:
    return ~found.done_B & (found.count_B < limit_B)

  def advance(loop: _Loop) -> _Loop:
    index, found, logits_BV, seen_BLD, carry, state = loop
    left_BV = jax.nn.log_softmax(logits_processor(logits_BV, state))
    log_prob_BK, token_BK = jax.lax.top_k(left_BV, number)
    read = step(token_BK.reshape(-1, 1), repeat(carry, number), None)
    vector_BKD = _unit(read[1]).reshape(batch, number, -1)
    is_text_1L = jnp.arange(seen_BLD.shape[1])[None] < time + index
    is_text_BL = is_text_1L & jnp.any(seen_BLD != 0, axis=-1)
    cosine_BKL = jnp.einsum("BKD,BLD->BKL", vector_BKD, seen_BLD)
    nearest_BK = jnp.max(
      cosine_BKL, axis=-1, initial=-1.0, where=is_text_BL[:, None]
    )
    score_BK = (1 - alpha) * jnp.exp(log_prob_BK) - alpha * nearest_BK
    score_BK = jnp.where(log_prob_BK > -jnp.inf, score_BK, -jnp.inf)
    best_B = jnp.argmax(score_BK, axis=1)
    rows_B = jnp.arange(batch)

    active_B = is_active(found)
    token_B = token_BK[rows_B, best_B]
    log_probs_BV = jax.nn.log_softmax(logits_BV)
    drawn_B = jnp.where(active_B, token_B, pad_token)
    log_prob_B = jnp.where(active_B, log_probs_BV[rows_B, token_B], 0.0)
    sampled = SampledTokens(
      found.sampled.tokens_BN.at[:, index].set(drawn_B),
      found.sampled.log_probs_BN.at[:, index].set(log_prob_B),
    )
    stops_B = active_B & (token_B == stop_token)
    found = Contrasted(
      sampled, found.count_B + active_B, found.done_B | stops_B
    )
    chosen_B = rows_B * number + best_B
    logits_BV, carry = jax.tree.map(lambda x: x[chosen_B], (read[0], read[2]))
    seen_BLD = seen_BLD.at[:, time + index].set(vector_BKD[rows_B, best_B])
    state = logits_processor.advance(
      state, token_B, log_prob_BK[rows_B, best_B]
    )
    return _Loop(index + 1, found, logits_BV, seen_BLD, carry, state)

  blank_BN = jnp.full((batch, num_tokens), pad_token, jnp.int32)
  none_B = jnp.zeros(batch, jnp.int32)
  sampled = SampledTokens(blank_BN, jnp.zeros(blank_BN.shape))
  found = Contrasted(sampled, none_B, none_B > 0)
  state = logits_processor.start(prompt, logits_BV.shape[-1])
  return jax.lax.while_loop(
    lambda loop: (loop.index < num_tokens) & is_active(loop.found).any(),
    advance,
    _Loop(jnp.int32(0), found, logits_BV, seen_BLD, carry, state),
  ).found


def _unit(vectors: Array) -> Array:
  """Scale vectors to length 1, in float32."""
  vectors = vectors.astype(jnp.float32)
  length = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
  return vectors / jnp.maximum(length, 1e-12)
