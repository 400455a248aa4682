# SPDX-License-Identifier: Apache-2.0
"""Speculative decoding: a draft proposes tokens, the target verifies them.

Leviathan et al. 2023 (arXiv:2211.17192) and Chen et al. 2023
(arXiv:2302.01318). Samples have the distribution of the target alone, logits
processors included, whatever the draft proposes: a proposed token x is accepted
with probability min(1, p(x) / q(x)), and after a rejection a token is sampled
in proportion to max(p - q, 0). A better draft needs fewer calls of the target.

Rows accept different numbers of tokens and have their own random keys.

Dimension letters:

    P  positions of the prompt and the continuation
"""

import functools
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lmjax.decoding import multinomial
from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.generate import DecodeState, SampledTokens
from lmjax.decoding.logits_processors import LogitsProcessor, Prompt
from lmjax.types import Array, PyTree


class Proposal(NamedTuple):
  """Tokens that a draft proposes.

  Attributes:
    tokens_BO: the next tokens.
    probs_BOV: distribution that each was sampled from; None if the proposal is
      deterministic.
    pending: what `Draft.accept` needs to continue.
  """

  tokens_BO: Array
  probs_BOV: Array | None
  pending: PyTree


class Draft(Protocol):
  """Proposes tokens; its state is a pytree with leaves [B, ...]."""

  def propose(
    self,
    draft_state: PyTree,
    last_B: Array,
    keys_BT: Array,
    logits_processor: LogitsProcessor,
    processor_state: PyTree,
  ) -> Proposal:
    """Propose K = T - 1 tokens after a text.

    Args:
      draft_state: state after the text without its last token.
      last_B: that token.
      keys_BT: random keys.
      logits_processor: the logits processor of the target.
      processor_state: its state after the text.
    """

  def accept(self, pending: PyTree, tokens_BT: Array, count_B: Array) -> PyTree:
    """Return the draft state after the accepted tokens.

    Args:
      pending: `pending` of the proposal.
      tokens_BT: the accepted tokens, followed by one more token.
      count_B: how many were accepted, at most K.
    """


class ModelDraft(NamedTuple):
  """A smaller model as the draft; its state is a carry."""

  model: DecodingModel

  def propose(
    self,
    draft_state: PyTree,
    last_B: Array,
    keys_BT: Array,
    logits_processor: LogitsProcessor,
    processor_state: PyTree,
  ) -> Proposal:
    """Sample tokens one by one.

    The model is applied to the last of them too: its snapshot is needed if all
    tokens are accepted.
    """

    def sample(loop, key_B: Array):
      token_B, carry, state = loop
      logits_B1V, carry, snapshots = self.model.extend(token_B[:, None], carry)
      logits_BV = logits_processor(logits_B1V[:, 0], state)
      log_probs_BV = jax.nn.log_softmax(logits_BV)
      token_B = multinomial.sample(key_B, logits_BV)
      state = logits_processor.advance(
        state, token_B, _take_tokens(log_probs_BV, token_B)
      )
      snapshot = jax.tree.map(lambda leaf: leaf[0], snapshots)
      output = token_B, jnp.exp(log_probs_BV), snapshot
      return (token_B, carry, state), output

    loop = last_B, draft_state, processor_state
    (_, carry, _), sampled = jax.lax.scan(
      sample, loop, jnp.swapaxes(keys_BT, 0, 1)
    )
    tokens_TB, probs_TBV, snapshots = sampled
    probs_BTV = jnp.swapaxes(probs_TBV, 0, 1)
    return Proposal(tokens_TB[:-1].T, probs_BTV[:, :-1], (carry, snapshots))

  def accept(self, pending: PyTree, tokens_BT: Array, count_B: Array) -> PyTree:
    """Roll the carry back to the last accepted token."""
    del tokens_BT
    carry, snapshots = pending
    return self.model.rollback(carry, _take_step(snapshots, count_B))


class LookupState(NamedTuple):
  """State of PromptLookup.

  Attributes:
    tokens_BP: the texts; anything after their end.
    starts_B: index of the first token of each text.
    length_B: index after the last token of each text.
  """

  tokens_BP: Array
  starts_B: Array
  length_B: Array

  @classmethod
  def of(cls, prompt: Prompt, num_tokens: int) -> "LookupState":
    """Start with prompts, with room for `num_tokens` more tokens."""
    tokens_BT, starts_B = map(jnp.asarray, prompt)
    tokens_BP = jnp.pad(tokens_BT, ((0, 0), (0, num_tokens)))
    return cls(tokens_BP, starts_B, jnp.full_like(starts_B, tokens_BT.shape[1]))


class PromptLookup(NamedTuple):
  """Propose what followed the newest tokens earlier in the text (Saxena 2023).

  No model is needed. Of all earlier positions that end in the newest tokens,
  the one with the longest match is used; among equals, the last.

  Attributes:
    max_match: maximum number of newest tokens that are compared.
  """

  max_match: int = 3

  def propose(
    self,
    draft_state: LookupState,
    last_B: Array,
    keys_BT: Array,
    logits_processor: LogitsProcessor,
    processor_state: PyTree,
  ) -> Proposal:
    """Copy tokens, cyclically at the end of the text.

    Without a match the last token is repeated.
    """
    del logits_processor, processor_state
    end_B1 = draft_state.length_B[:, None]
    starts_B1 = draft_state.starts_B[:, None]
    tokens_BP = _write_rows(
      draft_state.tokens_BP, last_B[:, None], draft_state.length_B
    )
    size = tokens_BP.shape[1]
    columns_1P = jnp.arange(size)[None]

    def token_before(columns: Array, number: int) -> Array:
      columns = jnp.maximum(columns - number, 0)
      return jnp.take_along_axis(tokens_BP, columns, axis=1)

    columns_BP = jnp.broadcast_to(columns_1P, tokens_BP.shape)
    match_length_BP = jnp.zeros_like(columns_BP)
    matches_BP = columns_BP < end_B1
    for number in range(self.max_match):
      matches_BP &= columns_BP - number >= starts_B1
      matches_BP &= token_before(columns_BP, number) == token_before(
        end_B1, number
      )
      match_length_BP += matches_BP
    # The longest match first, then the last position. Without a match this is
    # the end of the text itself.
    rank_BP = match_length_BP * size + columns_BP
    rank_BP = jnp.where(columns_BP <= end_B1, rank_BP, -1)
    found_B1 = jnp.argmax(rank_BP, axis=1)[:, None]
    ahead_1O = jnp.arange(keys_BT.shape[1] - 1)[None]
    ahead_BO = ahead_1O % jnp.maximum(end_B1 - found_B1, 1)
    from_B1 = jnp.minimum(found_B1 + 1, end_B1)
    copied_BO = jnp.take_along_axis(tokens_BP, from_B1 + ahead_BO, axis=1)
    return Proposal(copied_BO, None, draft_state._replace(tokens_BP=tokens_BP))

  def accept(
    self, pending: LookupState, tokens_BT: Array, count_B: Array
  ) -> LookupState:
    """Append the accepted tokens."""
    length_B = pending.length_B + 1  # `propose` appended the last token
    tokens_BP = _write_rows(pending.tokens_BP, tokens_BT, length_B)
    return pending._replace(tokens_BP=tokens_BP, length_B=length_B + count_B)


class SpeculativeSamples(NamedTuple):
  """Sequences sampled by speculative decoding.

  Attributes:
    sampled: their tokens and log-probabilities.
    count_B: number of tokens of each sequence.
    done_B: whether it ended with the stop token.
    calls_B: number of calls of the target per row, after the prefill.
  """

  sampled: SampledTokens
  count_B: Array
  done_B: Array
  calls_B: Array


class _Invariants(NamedTuple):
  """What does not change while the loop runs; see `speculate`."""

  target: DecodingModel
  draft: Draft
  keys_B: Array
  limit_B: Array
  num_draft: int
  logits_processor: LogitsProcessor
  stop_token: int


class _Loop(NamedTuple):
  """State of the loop of `speculate`.

  Attributes:
    samples: the sequences so far.
    last_B: their last tokens, which neither model has processed.
    carry: carry of the target.
    draft_state: state of the draft.
    processor_state: state of the logits processor.
  """

  samples: SpeculativeSamples
  last_B: Array
  carry: PyTree
  draft_state: PyTree
  processor_state: PyTree


def speculate(
  target: DecodingModel,
  decode_state: DecodeState,
  draft: Draft,
  draft_state: PyTree,
  keys_B: Array,
  limit_B: Array,
  num_tokens: int,
  num_draft: int,
  logits_processor: LogitsProcessor,
  *,
  stop_token: int,
  pad_token: int,
) -> SpeculativeSamples:
  """Sample until all sequences have ended.

  Args:
    target: the model whose samples these are.
    decode_state: the state of the target after `prefill`.
    draft: proposes tokens.
    draft_state: the state of the draft after the prompts.
    keys_B: one random key per row.
    limit_B: maximum number of new tokens per row.
    num_tokens: N, the maximum of the limits. Carries have room for `num_draft`
      + 1 tokens more.
    num_draft: K, number of tokens proposed at a time; at least 1.
    logits_processor: maps the logits of the target and of the draft to the
      logits that are sampled from.
    stop_token: ends a sequence.
    pad_token: fills rows after their end.
  """
  invariants = _Invariants(
    target, draft, keys_B, limit_B, num_draft, logits_processor, stop_token
  )
  batch, time = len(limit_B), num_draft + 1
  zero_B = jnp.zeros(batch, jnp.int32)
  # T columns more than the limit: without them dynamic_update_slice would move
  # the start of a write near the end of the array backwards.
  blank_BN = jnp.zeros((batch, num_tokens + time), jnp.int32)
  sampled = SampledTokens(blank_BN, blank_BN.astype(jnp.float32))
  samples = SpeculativeSamples(sampled, zero_B, zero_B > 0, zero_B)
  logits_BV = logits_processor(decode_state.logits_BV, decode_state.state)
  keys = jax.vmap(jax.random.fold_in)(keys_B, zero_B)
  first_B = multinomial.sample(keys, logits_BV)
  log_prob_B = _take_tokens(jax.nn.log_softmax(decode_state.logits_BV), first_B)
  state = logits_processor.advance(
    decode_state.state,
    first_B,
    _take_tokens(jax.nn.log_softmax(logits_BV), first_B),
  )
  samples = _append(
    invariants, samples, first_B[:, None], log_prob_B[:, None], zero_B + 1
  )
  samples = jax.lax.while_loop(
    lambda loop: _is_active(invariants, loop.samples).any(),
    functools.partial(_advance, invariants),
    _Loop(samples, first_B, decode_state.carry, draft_state, state),
  ).samples
  is_text_BN = jnp.arange(num_tokens)[None] < samples.count_B[:, None]
  tokens_BN, log_probs_BN = (x[:, :num_tokens] for x in samples.sampled[:2])
  sampled = SampledTokens(
    jnp.where(is_text_BN, tokens_BN, pad_token),
    jnp.where(is_text_BN, log_probs_BN, 0.0),
  )
  return samples._replace(sampled=sampled)


def _is_active(invariants: _Invariants, samples: SpeculativeSamples) -> Array:
  return ~samples.done_B & (samples.count_B < invariants.limit_B)


def _append(
  invariants: _Invariants,
  samples: SpeculativeSamples,
  tokens_BT: Array,
  log_probs_BT: Array,
  new_B: Array,
) -> SpeculativeSamples:
  """Append the first `new_B` tokens of each row, but none after its end."""
  sampled, count_B, done_B, calls_B = samples
  columns_T = jnp.arange(tokens_BT.shape[1])
  stops_BT = tokens_BT == invariants.stop_token
  ended_BT = jnp.cumsum(stops_BT, axis=1) - stops_BT > 0
  room_B = jnp.minimum(new_B, invariants.limit_B - count_B)
  room_B = jnp.where(done_B, 0, room_B)
  appended_BT = (columns_T[None] < room_B[:, None]) & ~ended_BT
  # All tokens are written: those that do not count are overwritten by the next
  # ones, or masked at the end.
  sampled = SampledTokens(
    _write_rows(sampled.tokens_BN, tokens_BT, count_B),
    _write_rows(sampled.log_probs_BN, log_probs_BT, count_B),
  )
  count_B += jnp.sum(appended_BT, axis=1)
  done_B |= jnp.any(appended_BT & stops_BT, axis=1)
  return SpeculativeSamples(sampled, count_B, done_B, calls_B)


def _advance(invariants: _Invariants, loop: _Loop) -> _Loop:
  """Let the draft propose tokens and the target verify them."""
  samples, last_B, carry, draft_state, state = loop
  target, draft = invariants.target, invariants.draft
  logits_processor, time = invariants.logits_processor, invariants.num_draft + 1
  keys = jax.vmap(jax.random.fold_in)(invariants.keys_B, samples.count_B)
  keys_B3 = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
  keys_BT = jax.vmap(lambda k: jax.random.split(k, time))(keys_B3[:, 0])
  proposal = draft.propose(
    draft_state, last_B, keys_BT, logits_processor, state
  )
  proposed_BT = jnp.pad(proposal.tokens_BO, ((0, 0), (0, 1)))
  inputs_BT = jnp.concatenate([last_B[:, None], proposal.tokens_BO], axis=1)
  logits_BTV, carry, snapshots = target.extend(inputs_BT, carry)

  p_BTV, states = _target_probs(
    logits_processor, logits_BTV, proposed_BT, state
  )
  q_BOV = proposal.probs_BOV
  if q_BOV is None:
    q_BOV = jax.nn.one_hot(proposal.tokens_BO, p_BTV.shape[-1])
  q_BTV = jnp.pad(q_BOV, ((0, 0), (0, 1), (0, 0)))
  count_B = _count_accepted(keys_B3[:, 1], p_BTV, q_BTV, proposed_BT)
  last_B, p_BV = _sample_residual(keys_B3[:, 2], p_BTV, q_BTV, count_B)

  rows_B = jnp.arange(len(count_B))
  tokens_BT = proposed_BT.at[rows_B, count_B].set(last_B)
  state = logits_processor.advance(
    _take_step(states, count_B), last_B, jnp.log(_take_tokens(p_BV, last_B))
  )
  log_probs_BT = _take_tokens(jax.nn.log_softmax(logits_BTV), tokens_BT)
  active_B = _is_active(invariants, samples)
  samples = samples._replace(calls_B=samples.calls_B + active_B)
  return _Loop(
    _append(invariants, samples, tokens_BT, log_probs_BT, count_B + 1),
    last_B,
    target.rollback(carry, _take_step(snapshots, count_B)),
    draft.accept(proposal.pending, tokens_BT, count_B),
    state,
  )


def _target_probs(
  logits_processor: LogitsProcessor,
  logits_BTV: Array,
  proposed_BT: Array,
  processor_state: PyTree,
) -> tuple[Array, PyTree]:
  """Return the target's distributions, after the logits processor.

  Returns:
    Probabilities [B, T, V], and the state of the logits processor before each
    token: leaves [T, B, ...].
  """

  def advance(state: PyTree, inputs: tuple[Array, Array]):
    logits_BV, token_B = inputs
    log_probs_BV = jax.nn.log_softmax(logits_processor(logits_BV, state))
    after = logits_processor.advance(
      state, token_B, _take_tokens(log_probs_BV, token_B)
    )
    return after, (jnp.exp(log_probs_BV), state)

  by_time = jnp.swapaxes(logits_BTV, 0, 1), proposed_BT.T
  _, (p_TBV, states) = jax.lax.scan(advance, processor_state, by_time)
  return jnp.swapaxes(p_TBV, 0, 1), states


def _count_accepted(
  keys_B: Array, p_BTV: Array, q_BTV: Array, proposed_BT: Array
) -> Array:
  """Return how many proposed tokens are accepted before the first rejection."""
  num_draft = proposed_BT.shape[1] - 1
  uniform_BO = jax.vmap(lambda k: jax.random.uniform(k, (num_draft,)))(keys_B)
  p_BT, q_BT = (_take_tokens(x, proposed_BT) for x in (p_BTV, q_BTV))
  # u < p / q, written without the division, which may be 0 / 0.
  accepted_BO = uniform_BO * q_BT[:, :-1] < p_BT[:, :-1]
  return jnp.sum(jnp.cumprod(accepted_BO, axis=1), axis=1)


def _sample_residual(
  keys_B: Array, p_BTV: Array, q_BTV: Array, count_B: Array
) -> tuple[Array, Array]:
  """Sample the token after the accepted ones in proportion to max(p - q, 0).

  If all were accepted q is 0 there, so the token is sampled from p.

  Returns:
    The tokens [B], and p at their positions [B, V].
  """
  p_BV, q_BV = (
    _take_step(jnp.swapaxes(x, 0, 1), count_B) for x in (p_BTV, q_BTV)
  )
  residual_BV = jnp.maximum(p_BV - q_BV, 0.0)
  # Where p equals q up to rounding, nothing is left of the difference.
  is_positive_B1 = jnp.any(residual_BV > 0, axis=-1, keepdims=True)
  residual_BV = jnp.where(is_positive_B1, residual_BV, p_BV)
  return multinomial.sample(keys_B, jnp.log(residual_BV)), p_BV


def _take_tokens(values: Array, tokens: Array) -> Array:
  """Take the values of tokens: [..., V] and [...] to [...]."""
  return jnp.take_along_axis(values, tokens[..., None], axis=-1)[..., 0]


def _take_step(tree: PyTree, step_B: Array) -> PyTree:
  """Take one step per row from leaves [T, B, ...]."""
  rows_B = jnp.arange(len(step_B))
  return jax.tree.map(lambda leaf: leaf[step_B, rows_B], tree)


def _write_rows(array_BP: Array, values_BT: Array, start_B: Array) -> Array:
  """Write values into rows, each from its own start."""
  return jax.vmap(
    lambda row, values, start: jax.lax.dynamic_update_slice(
      row, values.astype(row.dtype), (start,)
    )
  )(array_BP, values_BT, start_B)
