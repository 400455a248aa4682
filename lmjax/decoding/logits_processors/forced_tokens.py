# SPDX-License-Identifier: Apache-2.0
"""Processors that depend on the number of generated tokens."""

import jax.numpy as jnp

from lmjax.decoding.logits_processors.logits_processor import (
  LogitsProcessor,
  Prompt,
  logits_processor_class,
  per_row,
  static,
  suppress,
)
from lmjax.decoding.logits_processors.token_history import NONE
from lmjax.types import Array


class _Counting(LogitsProcessor):
  """A processor whose state is the number of generated tokens, int32 [B]."""

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Start at 0."""
    return jnp.zeros(len(prompt.starts_B), jnp.int32)

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Count the token."""
    return state + 1


@logits_processor_class
class MinLength(_Counting):
  """Do not end a text early, unless no other token is possible.

  Attributes:
    number: minimum number of tokens before the stop token.
    stop_tokens: tokens that end a text.
  """

  number: Array | int
  stop_tokens: tuple[int, ...] = static()

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Suppress stop tokens while the text is too short."""
    vocabulary = jnp.arange(logits_BV.shape[1])
    stops_V = jnp.isin(vocabulary, jnp.array(self.stop_tokens, jnp.int32))
    short_B1 = state[:, None] < per_row(self.number)
    return suppress(logits_BV, short_B1 & stops_V[None])


@logits_processor_class
class ForcedPrefix(_Counting):
  """Start with given tokens, however unlikely they are.

  >>> ForcedPrefix(jnp.array([7, 9]))  # the first two tokens are 7 and 9

  Attributes:
    tokens: int [N] or [B, N]; NONE (−1) allows any token at its position.
  """

  tokens: Array

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Set all logits but that of the forced token to −∞."""
    tokens = jnp.atleast_2d(jnp.asarray(self.tokens))
    tokens = jnp.pad(tokens, ((0, 0), (0, 1)), constant_values=NONE)
    tokens = jnp.broadcast_to(tokens, (len(state), tokens.shape[1]))
    index_B1 = jnp.minimum(state, tokens.shape[1] - 1)[:, None]
    token_B1 = jnp.take_along_axis(tokens, index_B1, axis=1)
    is_forced_BV = jnp.arange(logits_BV.shape[1])[None] == token_B1
    forced_BV = jnp.where(is_forced_BV, 0.0, -jnp.inf)
    return jnp.where(token_B1 == NONE, logits_BV, forced_BV)
