# SPDX-License-Identifier: Apache-2.0
"""The generation loop: prefill the prompts, then sample token by token.

`prefill` processes all prompts in one call. `decode` samples any number of
tokens in one traced loop and returns its state, so a sequence can be generated
at once or in chunks.

Each row samples its n-th token with its own key folded with n, and has a carry
of its own. A sequence therefore does not depend on the other rows, on the
padding before its prompt, or on the chunk size.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.decoding import multinomial
from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.logits_processors import LogitsProcessor, Prompt
from lmjax.types import Array, PyTree


class DecodeState(NamedTuple):
  """State of the decoding loop; the first axis of every leaf is the batch.

  Attributes:
    logits_BV: logits of the next token, before logits processors.
    carry: model carry after all tokens so far.
    state: state of the logits processor.
    count_B: number of sampled tokens.
    cache_length_B: number of tokens in the carry.
    recent_BO: the newest tokens, which refill the context when it is full; None
      if the context cannot be exceeded.
    done_B: whether a stop token was sampled.
  """

  logits_BV: Array
  carry: PyTree
  state: PyTree
  count_B: Array
  cache_length_B: Array
  recent_BO: Array | None
  done_B: Array


class SampledTokens(NamedTuple):
  """Sampled tokens and their log-probabilities.

  Attributes:
    tokens_BN: int32, padded after the end of a sequence.
    log_probs_BN: log-probability of each token in nats under the model, before
      logits processors.
    top_tokens_BNO: the K most likely tokens at each position, most likely
      first; None if not requested.
    top_log_probs_BNO: log-probabilities of these tokens, in nats.
  """

  tokens_BN: Array
  log_probs_BN: Array
  top_tokens_BNO: Array | None = None
  top_log_probs_BNO: Array | None = None


def prefill(
  model: DecodingModel,
  prompt: Prompt,
  logits_processor: LogitsProcessor,
  capacity: int,
  max_context: int | None,
) -> DecodeState:
  """Prefill prompts.

  Args:
    model: the model, bound to the sources of the prompts if it has an encoder.
    prompt: left-padded; 1 to `capacity` tokens per row.
    logits_processor: the processor that `decode` will apply.
    capacity: tokens that the carry holds; `max_context` if that may be
      exceeded.
    max_context: capacity of the carry in tokens; None if it cannot be exceeded.
  """
  tokens_BT, starts_B = prompt
  batch, time = tokens_BT.shape
  # Each prompt starts with a reset, so that the padding before it is invisible.
  logits_BV, carry = model.prefill(
    tokens_BT, model.initial_carry(batch, capacity), prompt.resets()
  )
  recent_BO = None
  if max_context is not None:
    number = _refill_length(max_context)
    recent_BO = jnp.pad(tokens_BT, ((0, 0), (number, 0)))[:, -number:]
  return DecodeState(
    logits_BV,
    carry,
    logits_processor.start(prompt, logits_BV.shape[-1]),
    jnp.zeros(batch, jnp.int32),
    (time - starts_B).astype(jnp.int32),
    recent_BO,
    jnp.zeros(batch, bool),
  )


class _Invariants(NamedTuple):
  """What does not change while the loop of `decode` runs; see its arguments.

  Attributes:
    carry_shapes: shapes of the carry, which loses its axes of size one in the
      loop.
  """

  model: DecodingModel
  keys_B: Array
  limit_B: Array
  num_tokens: int
  logits_processor: LogitsProcessor
  stop_tokens: tuple[int, ...]
  pad_token: int
  max_context: int | None
  control_code_B: Array | None
  num_top_logprobs: int
  carry_shapes: PyTree


class _Loop(NamedTuple):
  """State of the loop of `decode`.

  Attributes:
    index: column of `sampled` that is written next.
    sampled: the tokens of this call.
    decode_state: the state after them; its carry has no axes of size one.
  """

  index: Array
  sampled: SampledTokens
  decode_state: DecodeState


def decode(
  model: DecodingModel,
  decode_state: DecodeState,
  keys_B: Array,
  limit_B: Array,
  num_tokens: int,
  logits_processor: LogitsProcessor,
  *,
  stop_tokens: tuple[int, ...],
  pad_token: int,
  max_context: int | None,
  control_code_B: Array | None = None,
  num_top_logprobs: int = 0,
) -> tuple[SampledTokens, DecodeState]:
  """Sample until all sequences have ended, at most `num_tokens` per row.

  When the context of a row is full, its carry is replaced by that of the newest
  half of the context, so sequences can be of any length.

  Args:
    model: the model that `prefill` used.
    decode_state: state to continue from.
    keys_B: one random key per row, the same in every call for a sequence.
    limit_B: maximum number of new tokens per row, over all calls.
    num_tokens: N, maximum number of new tokens per row in this call.
    logits_processor: maps logits to the logits that are sampled from.
    stop_tokens: a sequence ends after any of these.
    pad_token: fills rows after their end.
    max_context: see `prefill`.
    control_code_B: control code that starts a refilled context; −1 for none.
    num_top_logprobs: K, number of most likely tokens to return per position.

  Returns:
    The new tokens, and the state to continue from.
  """
  invariants = _Invariants(
    model,
    keys_B,
    limit_B,
    num_tokens,
    logits_processor,
    stop_tokens,
    pad_token,
    max_context,
    control_code_B,
    num_top_logprobs,
    jax.eval_shape(lambda carry: carry, decode_state.carry),
  )
  batch = len(limit_B)
  sampled = SampledTokens(
    jnp.full((batch, num_tokens), pad_token, jnp.int32),
    jnp.zeros((batch, num_tokens)),
    jnp.full((batch, num_tokens, num_top_logprobs), pad_token, jnp.int32),
    jnp.zeros((batch, num_tokens, num_top_logprobs)),
  )
  decode_state = decode_state._replace(carry=_squeeze(decode_state.carry))
  advance = _advance if max_context is None else _advance_past_context
  loop = jax.lax.while_loop(
    functools.partial(_is_unfinished, invariants),
    functools.partial(advance, invariants),
    _Loop(jnp.int32(0), sampled, decode_state),
  )
  carry = _restore_shapes(invariants, loop.decode_state.carry)
  return loop.sampled, loop.decode_state._replace(carry=carry)


def _is_active(invariants: _Invariants, decode_state: DecodeState) -> Array:
  """Return which rows have not ended, bool [B]."""
  return ~decode_state.done_B & (decode_state.count_B < invariants.limit_B)


def _is_unfinished(invariants: _Invariants, loop: _Loop) -> Array:
  active_B = _is_active(invariants, loop.decode_state)
  return (loop.index < invariants.num_tokens) & active_B.any()


def _advance(invariants: _Invariants, loop: _Loop) -> _Loop:
  """Sample one token per row and apply the model to it."""
  column, decode_state = _sample(invariants, loop.decode_state)
  logits_BV, carry = invariants.model.decode_step(
    column.tokens_BN[:, 0], _restore_shapes(invariants, decode_state.carry)
  )
  return _Loop(
    loop.index + 1,
    _write_column(loop.sampled, loop.index, column),
    decode_state._replace(
      logits_BV=logits_BV,
      carry=_squeeze(carry),
      cache_length_B=decode_state.cache_length_B + 1,
    ),
  )


def _advance_past_context(invariants: _Invariants, loop: _Loop) -> _Loop:
  """Sample until the context of a row is full, then refill it."""

  def has_room(loop: _Loop) -> Array:
    # The refill is outside of this inner loop, so that all other steps are the
    # plain ones of a context without a limit.
    active_B = _is_active(invariants, loop.decode_state)
    cache_length_B = loop.decode_state.cache_length_B
    is_full_B = active_B & (cache_length_B >= invariants.max_context)
    return _is_unfinished(invariants, loop) & ~is_full_B.any()

  loop = jax.lax.while_loop(
    has_room, functools.partial(_advance, invariants), loop
  )
  return jax.lax.cond(
    _is_unfinished(invariants, loop),
    functools.partial(_refill, invariants),
    lambda loop: loop,
    loop,
  )


def _refill(invariants: _Invariants, loop: _Loop) -> _Loop:
  """Sample one token per row; rows with a full context are cached anew."""
  model, max_context = invariants.model, invariants.max_context
  is_full_B = loop.decode_state.cache_length_B >= max_context
  column, decode_state = _sample(invariants, loop.decode_state)
  # Only the newest half is cached again: refilling the whole context would have
  # to be repeated after every single token.
  recent_BO = decode_state.recent_BO
  if invariants.control_code_B is not None:
    code_B = invariants.control_code_B
    first_B = jnp.where(code_B < 0, recent_BO[:, 0], code_B)
    recent_BO = recent_BO.at[:, 0].set(first_B)
  continued = model.decode_step(
    column.tokens_BN[:, 0], _restore_shapes(invariants, decode_state.carry)
  )
  refilled = model.refill(recent_BO, continued[1])
  logits_BV, carry = jax.tree.map(
    lambda new, old: jnp.where(_expand_like(is_full_B, new), new, old),
    refilled,
    continued,
  )
  cache_length_B = jnp.where(
    is_full_B, _refill_length(max_context), decode_state.cache_length_B + 1
  )
  return _Loop(
    loop.index + 1,
    _write_column(loop.sampled, loop.index, column),
    decode_state._replace(
      logits_BV=logits_BV,
      carry=_squeeze(carry),
      cache_length_B=cache_length_B,
    ),
  )


def _sample(
  invariants: _Invariants, decode_state: DecodeState
) -> tuple[SampledTokens, DecodeState]:
  """Sample a token for each active row, without applying the model to it."""
  active_B = _is_active(invariants, decode_state)
  logits_processor = invariants.logits_processor
  keys = jax.vmap(jax.random.fold_in)(invariants.keys_B, decode_state.count_B)
  logits_BV = logits_processor(decode_state.logits_BV, decode_state.state)
  token_B = multinomial.sample(keys, logits_BV).astype(jnp.int32)
  token_B1 = jnp.where(active_B, token_B, invariants.pad_token)[:, None]
  log_prob_B1 = _log_probs(decode_state.logits_BV, token_B1)
  _, top_BO = jax.lax.top_k(decode_state.logits_BV, invariants.num_top_logprobs)
  column = SampledTokens(
    token_B1,
    jnp.where(active_B[:, None], log_prob_B1, 0.0),
    top_BO[:, None],
    _log_probs(decode_state.logits_BV, top_BO)[:, None],
  )
  recent_BO = decode_state.recent_BO
  if recent_BO is not None:
    recent_BO = jnp.concatenate([recent_BO[:, 1:], token_B1], axis=1)
  stop_tokens = jnp.array(invariants.stop_tokens, jnp.int32)
  stops_B = jnp.isin(token_B1[:, 0], stop_tokens)
  return column, decode_state._replace(
    state=logits_processor.advance(
      decode_state.state, token_B1[:, 0], _log_probs(logits_BV, token_B1)[:, 0]
    ),
    count_B=decode_state.count_B + active_B,
    recent_BO=recent_BO,
    done_B=decode_state.done_B | (active_B & stops_B),
  )


def _write_column(
  sampled: SampledTokens, index: Array, column: SampledTokens
) -> SampledTokens:
  return jax.tree.map(lambda x, y: x.at[:, index].set(y[:, 0]), sampled, column)


def _refill_length(max_context: int) -> int:
  """Return the number of tokens that refill a full context."""
  return max(max_context // 2, 1)


def _squeeze(carry: PyTree) -> PyTree:
  """Remove axes of size one.

  XLA's CPU backend updates a cache in place inside a loop only if the array has
  no axes of size one: with them it copies the whole cache every step.
  """
  return jax.tree.map(jnp.squeeze, carry)


def _restore_shapes(invariants: _Invariants, carry: PyTree) -> PyTree:
  return jax.tree.map(
    lambda x, y: x.reshape(y.shape), carry, invariants.carry_shapes
  )


def _log_probs(logits_BV: Array, tokens_BO: Array) -> Array:
  """Return log-probabilities of tokens, without writing those of all tokens."""
  highest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
  total_B = jnp.sum(jnp.exp(logits_BV - highest_B1), axis=-1)
  logits_BO = jnp.take_along_axis(logits_BV, tokens_BO, axis=-1)
  return (logits_BO - highest_B1) - jnp.log(total_B)[:, None]


def _expand_like(flag_B: Array, leaf: Array) -> Array:
  """Append axes to a flag per row, so that it broadcasts against a leaf."""
  return flag_B.reshape(-1, *[1] * (leaf.ndim - 1))
