# SPDX-License-Identifier: Apache-2.0
"""The generation loop: read prompts, then draw token after token.

`prefill` prefills all prompts in one call; `decode` draws any number of tokens in
one traced loop, and returns where it stopped, so that texts may be written at
once or some tokens at a time. Neither knows a model: a step turns tokens and a
carry into the logits behind the last token and a new carry.

Each row draws its n-th token with its own key and n, and reads a carry of its
own. So a text does not depend on the other rows, on the padding before its
prompt, or on how many tokens are asked for at a time.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.decoding import multinomial
from lmjax.decoding.filters import Filter, Prompt
from lmjax.types import Array, PyTree

# (tokens_BT, carry, resets_BT or None) → (logits_BV behind the last, carry)
Step = Callable[..., tuple[Array, PyTree]]
# (carry, number of its newest tokens) → a carry behind which they are read
Rewind = Callable[[PyTree, int], PyTree]


class DecodeState(NamedTuple):
  """Texts that are being written; every leaf begins with the axis of rows.

  Attributes:
    logits_BV: scores of the next token, before filters.
    carry: the model's, behind all tokens so far.
    state: the filter's.
    count_B: how many tokens were drawn.
    cache_length_B: how many tokens the carry holds of the text.
    recent_BK: the newest tokens, to be read again when the context is full;
      None where there is no limit.
    done_B: whether the text has ended.
  """

  logits_BV: Array
  carry: PyTree
  state: PyTree
  count_B: Array
  cache_length_B: Array
  recent_BK: Array | None
  done_B: Array


class SampledTokens(NamedTuple):
  """Tokens that were drawn.

  Attributes:
    tokens_BN: int32, padding behind the end of a text.
    log_probs_BN: of each, in nats, as the model has it before any filter.
    top_tokens_BNK: the most likely tokens at each position, most likely first;
      None unless requested.
    top_log_probs_BNK: their log-probabilities.
  """

  tokens_BN: Array
  log_probs_BN: Array
  top_tokens_BNK: Array | None = None
  top_log_probs_BNK: Array | None = None


def prefill(
  step: Step,
  carry: PyTree,
  prompt: Prompt,
  logits_processor: Filter,
  max_context: int | None,
) -> DecodeState:
  """Prefill prompts.

  Args:
    step: see above. Where prompts begin, it is told that a document does, so
      that padding is forgotten.
    carry: an empty one; if `max_context` may be exceeded, for so many tokens.
    prompt: at least one token each, and at most `max_context`.
    logits_processor: what logits will be turned by.
    max_context: how many tokens a carry holds; None for any number.
  """
  tokens_BT, starts_B = prompt
  batch, time = tokens_BT.shape
  logits_BV, carry = step(tokens_BT, carry, prompt.resets())
  recent_BK = None
  if max_context is not None:
    padding = ((0, 0), (_num_kept(max_context), 0))
    recent_BK = jnp.pad(tokens_BT, padding)[:, -_num_kept(max_context) :]
  return DecodeState(
    logits_BV,
    carry,
    logits_processor.start(prompt, logits_BV.shape[-1]),
    jnp.zeros(batch, jnp.int32),
    (time - starts_B).astype(jnp.int32),
    recent_BK,
    jnp.zeros(batch, bool),
  )


def decode(
  step: Step,
  rewind: Rewind,
  decode_state: DecodeState,
  keys_B: Array,
  limit_B: Array,
  num_tokens: int,
  logits_processor: Filter,
  *,
  stop_tokens: tuple[int, ...],
  pad_token: int,
  max_context: int | None,
  control_code_B: Array | None = None,
  num_top_logprobs: int = 0,
) -> tuple[SampledTokens, DecodeState]:
  """Draw tokens until all texts have ended, but not more than `num_tokens`.

  When the context of a row is full, the last half of it is read again from a
  carry that was rewound, and the row goes on: text may be of any length.

  Args:
    step: see above.
    rewind: not called if there is no limit.
    decode_state: where to go on.
    keys_B: a key a row, the same for all of a text.
    limit_B: how many tokens each text has at most, over all calls.
    num_tokens: N, how many are drawn at most in this call.
    logits_processor: turns logits into those that are drawn from.
    stop_tokens: after any of these a text has ended.
    pad_token: what follows behind the end.
    max_context: see `prefill`.
    control_code_B: a token that stays in front of the refill context of each
      row; −1 for none.
    num_top_logprobs: K, number of most likely tokens returned per position.
  """
  last_allowed = (
    max_context if max_context is not None else jnp.iinfo(jnp.int32).max
  )

  def goes_on(decode_state: DecodeState) -> Array:
    return ~decode_state.done_B & (decode_state.count_B < limit_B)

  def draw(decode_state: DecodeState) -> tuple[SampledTokens, DecodeState]:
    return _draw(
      decode_state,
      keys_B,
      goes_on(decode_state),
      logits_processor,
      stop_tokens,
      pad_token,
      num_top_logprobs,
    )

  def put(
    sampled: SampledTokens, index: Array, column: SampledTokens
  ) -> SampledTokens:
    return jax.tree.map(
      lambda x, y: x.at[:, index].set(y[:, 0]), sampled, column
    )

  # XLA's CPU backend writes into a cache in place, without axes of size one.
  shaped = jax.eval_shape(lambda x: x, decode_state.carry)

  def squeezed(carry: PyTree) -> PyTree:
    return jax.tree.map(jnp.squeeze, carry)

  def in_shape(carry: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x.reshape(y.shape), carry, shaped)

  def advance(loop):
    """Draw a token a row and read it."""
    index, sampled, decode_state = loop
    column, decode_state = draw(decode_state)
    logits_BV, carry = step(
      column.tokens_BN, in_shape(decode_state.carry), None
    )
    decode_state = decode_state._replace(
      logits_BV=logits_BV,
      carry=squeezed(carry),
      cache_length_B=decode_state.cache_length_B + 1,
    )
    return index + 1, put(sampled, index, column), decode_state

  def has_room(loop) -> Array:
    index, _, decode_state = loop
    active_B = goes_on(decode_state)
    full_B = active_B & (decode_state.cache_length_B >= last_allowed)
    return (index < num_tokens) & active_B.any() & ~full_B.any()

  def advance_past_context(loop):
    """Draw until a row is full, then let it read its newest tokens again."""
    index, sampled, decode_state = jax.lax.while_loop(has_room, advance, loop)

    def turn(loop):
      index, sampled, decode_state = loop
      full_B = decode_state.cache_length_B >= last_allowed
      column, decode_state = draw(decode_state)
      number, recent_BK = _num_kept(max_context), decode_state.recent_BK
      if control_code_B is not None:
        first_B = jnp.where(control_code_B < 0, recent_BK[:, 0], control_code_B)
        recent_BK = recent_BK.at[:, 0].set(first_B)
      on = step(column.tokens_BN, in_shape(decode_state.carry), None)
      again = step(recent_BK, rewind(on[1], number), None)
      logits_BV, carry = jax.tree.map(
        lambda a, b: jnp.where(_as_rows(full_B, a), a, b), again, on
      )
      cache_length_B = jnp.where(
        full_B, number, decode_state.cache_length_B + 1
      )
      decode_state = decode_state._replace(
        logits_BV=logits_BV,
        carry=squeezed(carry),
        cache_length_B=cache_length_B,
      )
      return index + 1, put(sampled, index, column), decode_state

    loop = index, sampled, decode_state
    more = (index < num_tokens) & goes_on(decode_state).any()
    return jax.lax.cond(more, turn, lambda loop: loop, loop)

  def unfinished(loop) -> Array:
    index, _, decode_state = loop
    return (index < num_tokens) & goes_on(decode_state).any()

  batch = len(limit_B)
  blank = SampledTokens(
    jnp.full((batch, num_tokens), pad_token, jnp.int32),
    jnp.zeros((batch, num_tokens)),
    jnp.full((batch, num_tokens, num_top_logprobs), pad_token, jnp.int32),
    jnp.zeros((batch, num_tokens, num_top_logprobs)),
  )
  decode_state = decode_state._replace(carry=squeezed(decode_state.carry))
  loop = jnp.int32(0), blank, decode_state
  if max_context is None:
    loop = jax.lax.while_loop(unfinished, advance, loop)
  else:
    loop = jax.lax.while_loop(unfinished, advance_past_context, loop)
  _, sampled, decode_state = loop
  return sampled, decode_state._replace(carry=in_shape(decode_state.carry))


def _draw(
  decode_state: DecodeState,
  keys_B: Array,
  active_B: Array,
  logits_processor: Filter,
  stop_tokens: tuple[int, ...],
  pad_token: int,
  num_top_logprobs: int,
) -> tuple[SampledTokens, DecodeState]:
  """Draw a token for each active row, as a column; it is read later."""
  keys = jax.vmap(jax.random.fold_in)(keys_B, decode_state.count_B)
  logits_BV = logits_processor(decode_state.logits_BV, decode_state.state)
  token_B = multinomial.draw(keys, logits_BV).astype(jnp.int32)
  token_B1 = jnp.where(active_B, token_B, pad_token)[:, None]
  log_prob_B1 = _log_probs(decode_state.logits_BV, token_B1)
  _, best_BK = jax.lax.top_k(decode_state.logits_BV, num_top_logprobs)
  column = SampledTokens(
    token_B1,
    jnp.where(active_B[:, None], log_prob_B1, 0.0),
    best_BK[:, None],
    _log_probs(decode_state.logits_BV, best_BK)[:, None],
  )
  recent_BK = decode_state.recent_BK
  if recent_BK is not None:
    recent_BK = jnp.concatenate([recent_BK[:, 1:], token_B1], axis=1)
  stops_B = jnp.isin(token_B1[:, 0], jnp.array(stop_tokens, jnp.int32))
  return column, decode_state._replace(
    state=logits_processor.advance(
      decode_state.state, token_B1[:, 0], _log_probs(logits_BV, token_B1)[:, 0]
    ),
    count_B=decode_state.count_B + active_B,
    recent_BK=recent_BK,
    done_B=decode_state.done_B | (active_B & stops_B),
  )


def _num_kept(max_context: int) -> int:
  """Say how many tokens are read again when a context is full."""
  return max(max_context // 2, 1)


def _log_probs(logits_BV: Array, tokens_BK: Array) -> Array:
  highest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
  total_B = jnp.sum(jnp.exp(logits_BV - highest_B1), axis=-1)
  logits_BK = jnp.take_along_axis(logits_BV, tokens_BK, axis=-1)
  return (logits_BK - highest_B1) - jnp.log(total_B)[:, None]


def _as_rows(flag_B: Array, leaf: Array) -> Array:
  return flag_B.reshape(-1, *[1] * (leaf.ndim - 1))
