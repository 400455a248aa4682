# SPDX-License-Identifier: Apache-2.0
"""What may come first: choices that depend on how much was drawn."""

import jax.numpy as jnp

from lmjax.decoding.filters.filter import (
  Filter,
  Prompt,
  filter_class,
  leave_out,
  per_row,
  static,
)
from lmjax.decoding.filters.recent import NONE
from lmjax.types import Array


class _Counting(Filter):
  """A filter whose state is how many tokens were drawn: int32 [B]."""

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Count nothing yet."""
    return jnp.zeros(len(prompt.starts_B), jnp.int32)

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Count a token."""
    return state + 1


@filter_class
class MinLength(_Counting):
  """Do not end a text before so many tokens, unless nothing else is possible.

  Attributes:
    number: tokens before the one that ends the text.
    stop_tokens: what ends it.
  """

  number: Array | int
  stop_tokens: tuple[int, ...] = static()

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Ban what ends a text that is too short."""
    vocabulary = jnp.arange(logits_BV.shape[1])
    stops_V = jnp.isin(vocabulary, jnp.array(self.stop_tokens, jnp.int32))
    short_B1 = state[:, None] < per_row(self.number)
    return leave_out(logits_BV, short_B1 & stops_V)


@filter_class
class Forced(_Counting):
  """Begin with given tokens, however unlikely.

  Attributes:
    tokens: int [N] or [B, N]; where NONE (−1) stands, any may come.
  """

  tokens: Array

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Set all logits but that of the given token to −∞."""
    tokens = jnp.atleast_2d(jnp.asarray(self.tokens))
    tokens = jnp.pad(tokens, ((0, 0), (0, 1)), constant_values=NONE)
    tokens = jnp.broadcast_to(tokens, (len(state), tokens.shape[1]))
    place_B1 = jnp.minimum(state, tokens.shape[1] - 1)[:, None]
    token_B1 = jnp.take_along_axis(tokens, place_B1, axis=1)
    given_BV = jnp.arange(logits_BV.shape[1]) == token_B1
    only_BV = jnp.where(given_BV, 0.0, -jnp.inf)
    return jnp.where(token_B1 == NONE, logits_BV, only_BV)
