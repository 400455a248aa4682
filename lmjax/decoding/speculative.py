# SPDX-License-Identifier: Apache-2.0
"""Speculative decoding: a draft proposes, the target judges many at once.

Leviathan et al. 2023 (arXiv:2211.17192) and Chen et al. 2023
(arXiv:2302.01318). What is drawn has the distribution of the target alone,
filters included, whatever the draft: a proposed token x is kept with
probability min(1, p(x) / q(x)), and where one is not, another is drawn in
proportion to max(p - q, 0). A better draft makes fewer calls of the target.

Rows go on at a pace of their own, and draw with keys of their own.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lmjax.decoding import multinomial
from lmjax.decoding.filters import Filter, Prompt
from lmjax.decoding.generate import DecodeState, SampledTokens
from lmjax.types import Array, PyTree


class Model(NamedTuple):
  """A model that can take back what it read; see LanguageModel.

  Attributes:
    extend: (tokens_BT, carry) → logits_BTV, the carry behind all tokens,
      and a snapshot behind each, [T, B, ...].
    rollback: (carry, snapshot [B, ...]) → the carry as it was.
  """

  extend: Callable[[Array, PyTree], tuple[Array, PyTree, PyTree]]
  rollback: Callable[[PyTree, PyTree], PyTree]


class Proposal(NamedTuple):
  """What a draft proposes.

  Attributes:
    tokens_BK: the next tokens.
    probs_BKV: what each was drawn from; None where nothing was left to chance.
    kept: what the draft needs to go on.
  """

  tokens_BK: Array
  probs_BKV: Array | None
  kept: PyTree


class Draft(Protocol):
  """What proposes tokens."""

  def propose(
    self,
    memory: PyTree,
    last_B: Array,
    keys_BT: Array,
    logits_processor: Filter,
    state: PyTree,
  ) -> Proposal:
    """Propose K = T - 1 tokens behind a text.

    Args:
      memory: of the text without its last token.
      last_B: that token.
      keys_BT: to draw with.
      logits_processor: turns logits into those that are drawn from.
      state: the filter's, behind the text.
    """

  def settle(self, kept: PyTree, tokens_BT: Array, accepted_B: Array) -> PyTree:
    """Return the memory behind the proposed tokens that were accepted.

    Args:
      kept: of the proposal.
      tokens_BT: what the text went on with: accepted tokens, and one more.
      accepted_B: how many were accepted, at most K.
    """


class ModelDraft(NamedTuple):
  """A model as a draft; its memory is a carry."""

  model: Model

  def propose(
    self,
    memory: PyTree,
    last_B: Array,
    keys_BT: Array,
    logits_processor: Filter,
    state: PyTree,
  ) -> Proposal:
    """Draw tokens one after the other; the last one is read too."""

    def draw(loop, key_B: Array):
      token_B, carry, state = loop
      logits_B1V, carry, snapshots = self.model.extend(token_B[:, None], carry)
      logits_BV = logits_processor(logits_B1V[:, 0], state)
      log_probs_BV = jax.nn.log_softmax(logits_BV)
      token_B = multinomial.draw(key_B, logits_BV)
      state = logits_processor.advance(
        state, token_B, _pick(log_probs_BV, token_B)
      )
      snapshot = jax.tree.map(lambda leaf: leaf[0], snapshots)
      return (token_B, carry, state), (token_B, jnp.exp(log_probs_BV), snapshot)

    loop = last_B, memory, state
    (_, carry, _), sampled = jax.lax.scan(
      draw, loop, jnp.swapaxes(keys_BT, 0, 1)
    )
    tokens_TB, probs_TBV, snapshots = sampled
    probs_BTV = jnp.swapaxes(probs_TBV, 0, 1)
    return Proposal(tokens_TB[:-1].T, probs_BTV[:, :-1], (carry, snapshots))

  def settle(self, kept: PyTree, tokens_BT: Array, accepted_B: Array) -> PyTree:
    """Go back to where the target left the proposal."""
    carry, snapshots = kept
    return self.model.rollback(carry, _at(snapshots, accepted_B))


class Text(NamedTuple):
  """The memory of PromptLookup.

  Attributes:
    tokens_BL: texts, and anything behind them.
    starts_B: where each begins.
    length_B: where it ends.
  """

  tokens_BL: Array
  starts_B: Array
  length_B: Array

  @classmethod
  def of(cls, prompt: Prompt, num_tokens: int) -> "Text":
    """Begin with prompts, and leave room for so many tokens behind them."""
    tokens_BT, starts_B = map(jnp.asarray, prompt)
    tokens_BL = jnp.pad(tokens_BT, ((0, 0), (0, num_tokens)))
    return cls(tokens_BL, starts_B, jnp.full_like(starts_B, tokens_BT.shape[1]))


class PromptLookup(NamedTuple):
  """Propose what stood behind the newest tokens before (Saxena 2023).

  No model is asked. Of all places that end in the newest tokens, the one counts
  that shares the most of them; of equals, the last.

  Attributes:
    num_matched: how many of the newest tokens are compared at most.
  """

  num_matched: int = 3

  def propose(
    self,
    memory: Text,
    last_B: Array,
    keys_BT: Array,
    logits_processor: Filter,
    state: PyTree,
  ) -> Proposal:
    """Copy, in a circle if the text ends; without a match, the last token."""
    del logits_processor, state
    end_B1, starts_B1 = memory.length_B[:, None], memory.starts_B[:, None]
    tokens_BL = _put(memory.tokens_BL, last_B[:, None], memory.length_B)
    size = tokens_BL.shape[1]
    places_1L = jnp.arange(size)[None]

    def before(places: Array, number: int) -> Array:
      places = jnp.maximum(places - number, 0)
      return jnp.take_along_axis(tokens_BL, places, axis=1)

    places_BL = jnp.broadcast_to(places_1L, tokens_BL.shape)
    shared_BL = jnp.zeros_like(places_BL)
    same_BL = places_BL < end_B1
    for number in range(self.num_matched):
      same_BL &= places_BL - number >= starts_B1
      same_BL &= before(places_BL, number) == before(end_B1, number)
      shared_BL += same_BL
    rank_BL = jnp.where(places_BL <= end_B1, shared_BL * size + places_BL, -1)
    found_B1 = jnp.argmax(rank_BL, axis=1)[:, None]  # the end, if none matches
    ahead_1K = jnp.arange(keys_BT.shape[1] - 1)[None]
    ahead_BK = ahead_1K % jnp.maximum(end_B1 - found_B1, 1)
    from_B1 = jnp.minimum(found_B1 + 1, end_B1)
    copied_BK = jnp.take_along_axis(tokens_BL, from_B1 + ahead_BK, axis=1)
    return Proposal(copied_BK, None, memory._replace(tokens_BL=tokens_BL))

  def settle(self, kept: Text, tokens_BT: Array, accepted_B: Array) -> Text:
    """Write down what was accepted."""
    length_B = kept.length_B + 1  # of the token that was proposed behind
    tokens_BL = _put(kept.tokens_BL, tokens_BT, length_B)
    return kept._replace(tokens_BL=tokens_BL, length_B=length_B + accepted_B)


class Speculated(NamedTuple):
  """Texts that were written.

  Attributes:
    sampled: their tokens, and log-probabilities.
    count_B: how many tokens each has.
    done_B: whether it has stopped.
    calls_B: how often the target was asked for it, behind the prompt.
  """

  sampled: SampledTokens
  count_B: Array
  done_B: Array
  calls_B: Array


class _Loop(NamedTuple):
  """Texts that are being written, all but their last tokens in memory."""

  written: Speculated
  last_B: Array
  carry: PyTree
  memory: PyTree
  state: PyTree


def speculate(
  target: Model,
  decode_state: DecodeState,
  draft: Draft,
  memory: PyTree,
  keys_B: Array,
  limit_B: Array,
  num_tokens: int,
  num_draft: int,
  logits_processor: Filter,
  *,
  stop_token: int,
  pad_token: int,
) -> Speculated:
  """Write until all texts have ended.

  Args:
    target: the model whose texts these are.
    decode_state: what `read` made of the prompts with the target.
    draft: what proposes tokens.
    memory: the draft's, of the prompts.
    keys_B: a key a row, the same for all of a text.
    limit_B: how many tokens each text has at most.
    num_tokens: N, the highest of the limits. Carries have room for `num_draft`
      + 1 tokens more.
    num_draft: K, how many tokens are proposed at a time; at least 1.
    logits_processor: transforms the logits of the target and of the draft
      before a token is sampled.
    stop_token: ends a text.
    pad_token: what follows behind the end.
  """
  batch, time = len(limit_B), num_draft + 1

  def add(
    written: Speculated, tokens_BT: Array, log_probs_BT: Array, new_B: Array
  ) -> Speculated:
    """Write the first tokens, but none behind an end."""
    sampled, count_B, done_B, calls_B = written
    places_T = jnp.arange(tokens_BT.shape[1])
    stops_BT = tokens_BT == stop_token
    ended_BT = jnp.cumsum(stops_BT, axis=1) - stops_BT > 0
    room_B = jnp.where(done_B, 0, jnp.minimum(new_B, limit_B - count_B))
    kept_BT = (places_T < room_B[:, None]) & ~ended_BT
    sampled = SampledTokens(
      _put(sampled.tokens_BN, tokens_BT, count_B),
      _put(sampled.log_probs_BN, log_probs_BT, count_B),
    )
    count_B += jnp.sum(kept_BT, axis=1)
    done_B |= jnp.any(kept_BT & stops_BT, axis=1)
    return Speculated(sampled, count_B, done_B, calls_B)

  def is_active(written: Speculated) -> Array:
    return ~written.done_B & (written.count_B < limit_B)

  def judge(state: PyTree, inputs: tuple[Array, Array]):
    """Find what a proposed token is judged by."""
    logits_BV, token_B = inputs
    log_probs_BV = jax.nn.log_softmax(logits_processor(logits_BV, state))
    after = logits_processor.advance(
      state, token_B, _pick(log_probs_BV, token_B)
    )
    return after, (jnp.exp(log_probs_BV), state)

  def advance(loop: _Loop) -> _Loop:
    """Let the draft propose and the target judge."""
    written, last_B, carry, memory, state = loop
    keys = jax.vmap(jax.random.fold_in)(keys_B, written.count_B)
    keys_B3 = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
    keys_BT = jax.vmap(lambda k: jax.random.split(k, time))(keys_B3[:, 0])
    proposal = draft.propose(memory, last_B, keys_BT, logits_processor, state)
    proposed_BT = jnp.pad(proposal.tokens_BK, ((0, 0), (0, 1)))

    read_BT = jnp.concatenate([last_B[:, None], proposal.tokens_BK], axis=1)
    logits_BTV, carry, snapshots = target.extend(read_BT, carry)
    by_time = jnp.swapaxes(logits_BTV, 0, 1), proposed_BT.T
    _, (p_TBV, states) = jax.lax.scan(judge, state, by_time)
    p_BTV = jnp.swapaxes(p_TBV, 0, 1)
    q_BKV = proposal.probs_BKV
    if q_BKV is None:
      q_BKV = jax.nn.one_hot(proposal.tokens_BK, p_BTV.shape[-1])
    q_BTV = jnp.pad(q_BKV, ((0, 0), (0, 1), (0, 0)))

    uniform_BK = jax.vmap(lambda k: jax.random.uniform(k, (num_draft,)))(
      keys_B3[:, 1]
    )
    p_BT, q_BT = (_pick(x, proposed_BT) for x in (p_BTV, q_BTV))
    kept_BK = uniform_BK * q_BT[:, :-1] < p_BT[:, :-1]
    accepted_B = jnp.sum(jnp.cumprod(kept_BK, axis=1), axis=1)

    p_BV, q_BV = (
      _at(jnp.swapaxes(x, 0, 1), accepted_B) for x in (p_BTV, q_BTV)
    )
    rest_BV = jnp.maximum(p_BV - q_BV, 0.0)
    is_left_B1 = jnp.any(rest_BV > 0, axis=-1, keepdims=True)  # but rounding
    rest_BV = jnp.where(is_left_B1, rest_BV, p_BV)
    last_B = multinomial.draw(keys_B3[:, 2], jnp.log(rest_BV))
    tokens_BT = proposed_BT.at[jnp.arange(batch), accepted_B].set(last_B)
    state = logits_processor.advance(
      _at(states, accepted_B), last_B, jnp.log(_pick(p_BV, last_B))
    )
    log_probs_BT = _pick(jax.nn.log_softmax(logits_BTV), tokens_BT)
    written = written._replace(calls_B=written.calls_B + is_active(written))
    return _Loop(
      add(written, tokens_BT, log_probs_BT, accepted_B + 1),
      last_B,
      target.rollback(carry, _at(snapshots, accepted_B)),
      draft.settle(proposal.kept, tokens_BT, accepted_B),
      state,
    )

  none_B = jnp.zeros(batch, jnp.int32)
  blank_BN = jnp.zeros((batch, num_tokens + time), jnp.int32)
  written = Speculated(
    SampledTokens(blank_BN, blank_BN.astype(jnp.float32)),
    none_B,
    none_B > 0,
    none_B,
  )
  first_BV = logits_processor(decode_state.logits_BV, decode_state.state)
  keys = jax.vmap(jax.random.fold_in)(keys_B, none_B)
  first_B = multinomial.draw(keys, first_BV)
  log_prob_B = _pick(jax.nn.log_softmax(decode_state.logits_BV), first_B)
  state = logits_processor.advance(
    decode_state.state, first_B, _pick(jax.nn.log_softmax(first_BV), first_B)
  )
  written = add(written, first_B[:, None], log_prob_B[:, None], none_B + 1)
  written = jax.lax.while_loop(
    lambda loop: is_active(loop.written).any(),
    advance,
    _Loop(written, first_B, decode_state.carry, memory, state),
  ).written
  is_text_BN = jnp.arange(num_tokens) < written.count_B[:, None]
  tokens_BN, log_probs_BN = (x[:, :num_tokens] for x in written.sampled[:2])
  sampled = SampledTokens(
    jnp.where(is_text_BN, tokens_BN, pad_token),
    jnp.where(is_text_BN, log_probs_BN, 0.0),
  )
  return written._replace(sampled=sampled)


def _pick(values: Array, tokens: Array) -> Array:
  """Take the values of tokens, [..., V] and [...] to [...]."""
  return jnp.take_along_axis(values, tokens[..., None], axis=-1)[..., 0]


def _at(tree: PyTree, place_B: Array) -> PyTree:
  """Take a place of each row, of leaves [T, B, ...]."""
  rows_B = jnp.arange(len(place_B))
  return jax.tree.map(lambda leaf: leaf[place_B, rows_B], tree)


def _put(array_BL: Array, values_BT: Array, start_B: Array) -> Array:
  """Write values into rows, each from a place of its own on."""
  return jax.vmap(
    lambda row, values, start: jax.lax.dynamic_update_slice(
      row, values.astype(row.dtype), (start,)
    )
  )(array_BL, values_BT, start_B)
