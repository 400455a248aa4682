# SPDX-License-Identifier: Apache-2.0
"""Beam search and greedy search: the most probable texts that were found.

Both are traced as a whole, and know no model: a step turns one token a row and
a carry into logits and a new carry. In beam search row b · N + n of a step is
hypothesis n of text b, so what a step knows of a text, such as a source, is
repeated N times by `repeat`, and every leaf of a carry has these rows as its
first axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.types import Array, PyTree

# (tokens [rows], carry) → (logits [rows, V], carry)
Step = Callable[[Array, PyTree], tuple[Array, PyTree]]


class Hypotheses(NamedTuple):
  """Texts that were found, the best first.

  Attributes:
    tokens_BNT: int32, `<eos>` and padding behind their ends; a text that did
      not end before its limit has none.
    scores_BN: log-probability in nats, divided by the length penalty; −∞ where
      there are fewer texts.
  """

  tokens_BNT: Array
  scores_BN: Array


class _Search(NamedTuple):
  """Where a search is: open hypotheses, and those that have ended."""

  index: Array  # tokens written so far
  last_BN: Array  # newest token of each open one
  tokens_BNT: Array
  log_probs_BN: Array  # −∞ where there is none
  carry: PyTree
  ended: Hypotheses
  done_B: Array


def repeat(tree: PyTree, times: int) -> PyTree:
  """Repeat each row of all leaves.

  >>> repeat(jnp.array([1, 2]), 3)
  [1, 1, 1, 2, 2, 2]
  """
  return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=0), tree)


def penalty(length: Array | int, alpha: float) -> Array:
  """Return what a log-probability is divided by: ((5 + length) / 6) ** α.

  Wu et al. 2016 (arXiv:1609.08144). Larger α favour longer texts; 0 divides by
  one.

  Args:
    length: tokens of a text, `<eos>` counted.
    alpha: α, at least 0.
  """
  return ((5.0 + length) / 6.0) ** alpha


def beam_search(
  step: Step,
  carry: PyTree,
  first_B: Array,
  num_tokens: int,
  beam_size: int,
  *,
  length_penalty: float = 0.0,
  num_best: int = 1,
  stop_token: int,
  pad_token: int,
) -> Hypotheses:
  """Search for the texts with the highest scores.

  In each step the N best continuations that do not stop stay open, and those
  among the N best of all that stop have ended. A text is done when N have
  ended, or `num_best` have and no open one can come out above them. Texts do
  not depend on one another. With a beam of one this is greedy search, and with
  a beam that holds all texts it is exhaustive.

  Args:
    step: sees B · N rows; see above.
    carry: before the first token, of B · N rows.
    first_B: token that each text begins behind; it is not in what is returned.
    num_tokens: T, how many tokens are written at most; at least 1.
    beam_size: N, at least 1.
    length_penalty: α of `penalty`.
    num_best: how many texts to return, at most N.
    stop_token: ends a text.
    pad_token: what follows behind the end.

  Returns:
    `num_best` texts for each row. Those that ended come before those that were
    cut at the limit.
  """
  batch, size = len(first_B), beam_size
  best_possible = penalty(num_tokens, length_penalty)

  def advance(search: _Search) -> _Search:
    logits, carry = step(search.last_BN.reshape(-1), search.carry)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    vocab_size = log_probs.shape[-1]
    joint_BNV = log_probs.reshape(batch, size, -1)
    joint_BNV += search.log_probs_BN[..., None]
    # Of 2 N continuations at least N go on: each hypothesis stops in one way.
    number = min(2 * size, size * vocab_size)
    joint_BM, choice_BM = jax.lax.top_k(joint_BNV.reshape(batch, -1), number)
    parent_BM, token_BM = choice_BM // vocab_size, choice_BM % vocab_size
    tokens_BMT = jnp.take_along_axis(
      search.tokens_BNT, parent_BM[..., None], axis=1
    )
    tokens_BMT = tokens_BMT.at[..., search.index].set(token_BM)
    stops_BM = token_BM == stop_token
    length = search.index + 1

    ends_BM = stops_BM & (jnp.arange(number) < size)
    scores_BM = jnp.where(ends_BM, joint_BM, -jnp.inf)
    scores_BM /= penalty(length, length_penalty)
    ended = _best(
      jnp.concatenate([search.ended.tokens_BNT, tokens_BMT], axis=1),
      jnp.concatenate([search.ended.scores_BN, scores_BM], axis=1),
      size,
    )
    ended = jax.tree.map(
      lambda old, new: _where(search.done_B, old, new), search.ended, ended
    )

    open_BM = jnp.where(stops_BM, -jnp.inf, joint_BM)
    open_BN, place_BN = jax.lax.top_k(open_BM, size)
    parent_BN = jnp.take_along_axis(parent_BM, place_BN, axis=1)
    rows = (parent_BN + size * jnp.arange(batch)[:, None]).reshape(-1)

    num_ended_B = jnp.sum(ended.scores_BN > -jnp.inf, axis=1)
    to_beat_B = ended.scores_BN[:, num_best - 1]
    hopeless_B = open_BN[:, 0] / best_possible <= to_beat_B
    done_B = search.done_B | (num_ended_B >= size) | hopeless_B
    return _Search(
      length,
      jnp.take_along_axis(token_BM, place_BN, axis=1),
      jnp.take_along_axis(tokens_BMT, place_BN[..., None], axis=1),
      jnp.where(search.done_B[:, None], search.log_probs_BN, open_BN),
      jax.tree.map(lambda leaf: leaf[rows], carry),
      ended,
      done_B,
    )

  blank_BNT = jnp.full((batch, size, num_tokens), pad_token, jnp.int32)
  nothing_BN = jnp.full((batch, size), -jnp.inf)
  search = jax.lax.while_loop(
    lambda search: (search.index < num_tokens) & ~search.done_B.all(),
    advance,
    _Search(
      jnp.int32(0),
      jnp.broadcast_to(first_B[:, None], (batch, size)).astype(jnp.int32),
      blank_BNT,
      nothing_BN.at[:, 0].set(0.0),
      carry,
      Hypotheses(blank_BNT, nothing_BN),
      jnp.zeros(batch, bool),
    ),
  )
  # Whoever is done needs none of the open ones: they come behind all others.
  cut_BN = search.log_probs_BN / best_possible
  tokens_BMT = jnp.concatenate([search.ended.tokens_BNT, search.tokens_BNT], 1)
  scores_BM = jnp.concatenate([search.ended.scores_BN, cut_BN], axis=1)
  rank_BM = jnp.where(scores_BM > -jnp.inf, jnp.arange(2 * size), 2 * size)
  order_BN = jnp.argsort(rank_BM, axis=1)[:, :num_best]
  return Hypotheses(
    jnp.take_along_axis(tokens_BMT, order_BN[..., None], axis=1),
    jnp.take_along_axis(scores_BM, order_BN, axis=1),
  )


def greedy_search(
  step: Step,
  carry: PyTree,
  first_B: Array,
  num_tokens: int,
  *,
  length_penalty: float = 0.0,
  stop_token: int,
  pad_token: int,
) -> Hypotheses:
  """Take the most probable token each time; see beam_search.

  Returns:
    One text for each row.
  """
  batch = len(first_B)

  def advance(loop):
    index, last_B, tokens_BT, log_prob_B, carry, done_B = loop
    logits_BV, carry = step(last_B, carry)
    log_probs_BV = jax.nn.log_softmax(logits_BV.astype(jnp.float32))
    token_B = jnp.argmax(log_probs_BV, axis=-1).astype(jnp.int32)
    log_prob_B += jnp.where(done_B, 0.0, jnp.max(log_probs_BV, axis=-1))
    token_B = jnp.where(done_B, pad_token, token_B)
    tokens_BT = tokens_BT.at[:, index].set(token_B)
    done_B |= token_B == stop_token
    return index + 1, token_B, tokens_BT, log_prob_B, carry, done_B

  blank_BT = jnp.full((batch, num_tokens), pad_token, jnp.int32)
  first_B, nothing_B = first_B.astype(jnp.int32), jnp.zeros(batch)
  start = (jnp.int32(0), first_B, blank_BT, nothing_B, carry, nothing_B > 0)
  _, _, tokens_BT, log_prob_B, _, _ = jax.lax.while_loop(
    lambda loop: (loop[0] < num_tokens) & ~loop[-1].all(), advance, start
  )
  ends_BT = tokens_BT == stop_token
  length_B = jnp.where(
    ends_BT.any(axis=1), jnp.argmax(ends_BT, axis=1) + 1, num_tokens
  )
  scores_B = log_prob_B / penalty(length_B, length_penalty)
  return Hypotheses(tokens_BT[:, None], scores_B[:, None])


def _best(tokens_BMT: Array, scores_BM: Array, number: int) -> Hypotheses:
  scores_BN, place_BN = jax.lax.top_k(scores_BM, number)
  tokens_BNT = jnp.take_along_axis(tokens_BMT, place_BN[..., None], axis=1)
  return Hypotheses(tokens_BNT, scores_BN)


def _where(flag_B: Array, a: Array, b: Array) -> Array:
  return jnp.where(flag_B.reshape(-1, *[1] * (a.ndim - 1)), a, b)
