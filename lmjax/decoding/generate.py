# SPDX-License-Identifier: Apache-2.0
"""The generation loop: prefill the prompts, then sample token by token.

`prefill` processes all prompts in one call. `decode` samples any number of
tokens in one traced loop and returns its state, so a sequence can be generated
at once or in chunks. Neither depends on a model: a step maps tokens and a carry
to the logits after the last token and a new carry.

Each row samples its n-th token with its own key folded with n, and has a carry
of its own. A sequence therefore does not depend on the other rows, on the
padding before its prompt, or on the chunk size.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.decoding import multinomial
from lmjax.decoding.filters import Filter, Prompt
from lmjax.types import Array, PyTree

# (tokens_BT, carry, resets_BT or None) → (logits_BV after the last, carry)
Step = Callable[..., tuple[Array, PyTree]]
# (carry, number of its newest tokens) → a carry from before these tokens
Rewind = Callable[[PyTree, int], PyTree]


class DecodeState(NamedTuple):
  """State of the decoding loop; the first axis of every leaf is the batch.

  Attributes:
    logits_BV: logits of the next token, before logits processors.
    carry: model carry after all tokens so far.
    state: state of the logits processor.
    count_B: number of sampled tokens.
    cache_length_B: number of tokens in the carry.
    recent_BK: the newest tokens, which refill the context when it is full; None
      if the context cannot be exceeded.
    done_B: whether a stop token was sampled.
  """

  logits_BV: Array
  carry: PyTree
  state: PyTree
  count_B: Array
  cache_length_B: Array
  recent_BK: Array | None
  done_B: Array


class SampledTokens(NamedTuple):
  """Sampled tokens and their log-probabilities.

  Attributes:
    tokens_BN: int32, padded after the end of a sequence.
    log_probs_BN: log-probability of each token in nats under the model, before
      logits processors.
    top_tokens_BNK: the K most likely tokens at each position, most likely
      first; None if not requested.
    top_log_probs_BNK: log-probabilities of these tokens, in nats.
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
    step: see above. Its resets mark the first token of each prompt as the
      start of a document, so that padding is not visible to it.
    carry: an empty carry; if `max_context` may be exceeded, with this capacity.
    prompt: left-padded; 1 to `max_context` tokens per row.
    logits_processor: the processor that `decode` will apply.
    max_context: capacity of the carry in tokens; None if it cannot be exceeded.
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
  """Sample until all sequences have ended, at most `num_tokens` per row.

  When the context of a row is full, its carry is rewound and refilled with the
  newest half of the context, so sequences can be of any length.

  Args:
    step: see above.
    rewind: see above; not called if `max_context` is None.
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
  last_allowed = (
    max_context if max_context is not None else jnp.iinfo(jnp.int32).max
  )

  def is_active(decode_state: DecodeState) -> Array:
    return ~decode_state.done_B & (decode_state.count_B < limit_B)

  def draw(decode_state: DecodeState) -> tuple[SampledTokens, DecodeState]:
    return _draw(
      decode_state,
      keys_B,
      is_active(decode_state),
      logits_processor,
      stop_tokens,
      pad_token,
      num_top_logprobs,
    )

  def put(
    drawn: SampledTokens, index: Array, column: SampledTokens
  ) -> SampledTokens:
    return jax.tree.map(lambda x, y: x.at[:, index].set(y[:, 0]), drawn, column)

  # XLA's CPU backend updates a cache in place inside a loop only if the array
  # has no axes of size one: with them it copies the whole cache every step.
  shaped = jax.eval_shape(lambda x: x, decode_state.carry)

  def squeezed(carry: PyTree) -> PyTree:
    return jax.tree.map(jnp.squeeze, carry)

  def in_shape(carry: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x.reshape(y.shape), carry, shaped)

  def advance(loop):
    """Sample one token per row and feed it to the model."""
    index, drawn, decode_state = loop
    column, decode_state = draw(decode_state)
    logits_BV, carry = step(
      column.tokens_BN, in_shape(decode_state.carry), None
    )
    decode_state = decode_state._replace(
      logits_BV=logits_BV,
      carry=squeezed(carry),
      cache_length_B=decode_state.cache_length_B + 1,
    )
    return index + 1, put(drawn, index, column), decode_state

  def has_room(loop) -> Array:
    index, _, decode_state = loop
    active_B = is_active(decode_state)
    full_B = active_B & (decode_state.cache_length_B >= last_allowed)
    return (index < num_tokens) & active_B.any() & ~full_B.any()

  def advance_past_context(loop):
    """Decode until the context of a row is full, then refill it."""
    index, drawn, decode_state = jax.lax.while_loop(has_room, advance, loop)

    def turn(loop):
      index, drawn, decode_state = loop
      full_B = decode_state.cache_length_B >= last_allowed
      column, decode_state = draw(decode_state)
      # Only the newest half is cached again: refilling the whole context would
      # have to be repeated after every single token.
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
      return index + 1, put(drawn, index, column), decode_state

    loop = index, drawn, decode_state
    more = (index < num_tokens) & is_active(decode_state).any()
    return jax.lax.cond(more, turn, lambda loop: loop, loop)

  def unfinished(loop) -> Array:
    index, _, decode_state = loop
    return (index < num_tokens) & is_active(decode_state).any()

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
  _, drawn, decode_state = loop
  return drawn, decode_state._replace(carry=in_shape(decode_state.carry))


def _draw(
  decode_state: DecodeState,
  keys_B: Array,
  active_B: Array,
  logits_processor: Filter,
  stop_tokens: tuple[int, ...],
  pad_token: int,
  num_top_logprobs: int,
) -> tuple[SampledTokens, DecodeState]:
  """Sample a token for each active row, without feeding it to the model."""
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
  """Return the number of tokens that refill a full context."""
  return max(max_context // 2, 1)


def _log_probs(logits_BV: Array, tokens_BK: Array) -> Array:
  highest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
  total_B = jnp.sum(jnp.exp(logits_BV - highest_B1), axis=-1)
  logits_BK = jnp.take_along_axis(logits_BV, tokens_BK, axis=-1)
  return (logits_BK - highest_B1) - jnp.log(total_B)[:, None]


def _as_rows(flag_B: Array, leaf: Array) -> Array:
  return flag_B.reshape(-1, *[1] * (leaf.ndim - 1))
