# SPDX-License-Identifier: Apache-2.0
"""The generation loop: prefill a prompt, then draw token after token.

It is traced as a whole, so that the host is asked once for all tokens. It
knows no model: a step turns tokens and a carry into the logits behind the last
token and a new carry.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmjax.decoding import multinomial
from lmjax.decoding.filters import Filter
from lmjax.types import Array, PyTree

Step = Callable[[Array, PyTree], tuple[Array, PyTree]]
Rewind = Callable[[PyTree, int], PyTree]


def generate(
  step: Step,
  carry: PyTree,
  rewind: Rewind,
  prompt_BT: Array,
  keys_B: Array,
  num_tokens: int,
  choose: Filter,
  *,
  context: int | None,
  stop_token: int,
  pad_token: int,
) -> Array:
  """Draw tokens behind prompts.

  Each row draws from its own key, so what it draws does not depend on the
  other rows. When the context is full, the last half of it is read again from a
  carry that was rewound and generation goes on, so text may be of any length.

  Args:
    step: (tokens_BT, carry) → (logits_BV behind the last token, carry).
    carry: an empty carry for `context` tokens.
    rewind: (full carry, number of its newest tokens) → a carry behind which
      these are read again; not called if there is no limit.
    prompt_BT: prompts of equal length, at least 1 and at most `context`.
    keys_B: a key a row.
    num_tokens: how many tokens to draw.
    choose: turns logits into those that are drawn from.
    context: how many tokens a carry holds; None for any number.
    stop_token: after it a row is finished.
    pad_token: what follows in a finished row.

  Returns:
    int32 tokens [B, num_tokens].
  """
  batch, prompt_length = prompt_BT.shape

  def draw(logits_BV: Array, index: Array, done_B: Array) -> Array:
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys_B, index)
    token_B = multinomial.draw(keys, choose(logits_BV))
    return jnp.where(done_B, pad_token, token_B).astype(jnp.int32)

  def fill(
    prefix_BT: Array, carry: PyTree, done_B: Array, start: Array, count: int
  ):
    """Prefill a prefix and draw `count` tokens, numbered from `start`."""

    def draw_one(loop, index):
      logits_BV, carry, done_B = loop
      token_B = draw(logits_BV, index, done_B)
      done_B |= token_B == stop_token
      carry = jax.tree.map(lambda x, y: x.reshape(y.shape), carry, shaped)
      logits_BV, carry = step(token_B[:, None], carry)
      return (logits_BV, jax.tree.map(jnp.squeeze, carry), done_B), token_B

    logits_BV, carry = step(prefix_BT, carry)
    # XLA's CPU backend writes into a cache in place, without axes of size one.
    shaped = jax.eval_shape(lambda x: x, carry)
    carry = jax.tree.map(jnp.squeeze, carry)
    (_, carry, done_B), tokens_TB = jax.lax.scan(
      draw_one, (logits_BV, carry, done_B), start + jnp.arange(count)
    )
    carry = jax.tree.map(lambda x, y: x.reshape(y.shape), carry, shaped)
    return tokens_TB.T, carry, done_B

  done_B = jnp.zeros(batch, bool)
  room = num_tokens if context is None else context - prompt_length + 1
  first = min(num_tokens, room)
  tokens_BT, carry, done_B = fill(prompt_BT, carry, done_B, 0, first)
  if first == num_tokens:
    return tokens_BT

  kept = max(context // 2, 1)
  per_round = context - kept + 1
  num_rounds = -(-(num_tokens - first) // per_round)

  def one_round(loop, start):
    last_BT, carry, done_B = loop
    carry = rewind(carry, kept)
    new_BT, carry, done_B = fill(last_BT, carry, done_B, start, per_round)
    last_BT = jnp.concatenate([last_BT, new_BT], axis=1)[:, -kept:]
    return (last_BT, carry, done_B), new_BT

  last_BT = jnp.concatenate([prompt_BT, tokens_BT], axis=1)[:, -kept:]
  starts = first + per_round * jnp.arange(num_rounds)
  _, more = jax.lax.scan(one_round, (last_BT, carry, done_B), starts)
  more_BT = jnp.swapaxes(more, 0, 1).reshape(batch, -1)
  return jnp.concatenate([tokens_BT, more_BT], axis=1)[:, :num_tokens]
