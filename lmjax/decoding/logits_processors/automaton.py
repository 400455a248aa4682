# SPDX-License-Identifier: Apache-2.0
"""Constraining texts to the language of a finite automaton."""

import jax.numpy as jnp

from lmjax.decoding.logits_processors.logits_processor import (
  LogitsProcessor,
  Prompt,
  logits_processor_class,
  mask_logits,
  per_row,
)
from lmjax.types import Array, PyTree


@logits_processor_class
class Automaton(LogitsProcessor):
  """Allow only tokens that an automaton accepts.

  Constraints on a text, such as a regular expression, become an automaton whose
  symbols are tokens (Willard and Louf 2023, arXiv:2307.09702). Tokens with the
  same transitions from every state share a class, so the table stays small for
  a large vocabulary.

  The text always reaches an accepting state within the limit: a token is only
  allowed if enough tokens remain after it. This requires `distance_U[0]` ≤
  `num_tokens`. If earlier processors excluded all tokens that the automaton
  accepts, these become equally likely.

  Attributes:
    next_UY: int32, the state after a token of each class; −1 if not accepted.
      Texts start in state 0, and `<eos>` keeps accepting states.
    class_V: int32, the class of each token.
    distance_U: int32, the minimum number of tokens from a state to an accepting
      state.
    num_tokens: maximum number of generated tokens.
  """

  next_UY: Array
  class_V: Array
  distance_U: Array
  num_tokens: Array | int = 1 << 30

  def start(self, prompt: Prompt, vocab_size: int) -> PyTree:
    """Start in state 0: constraints do not apply to the prompt."""
    del vocab_size
    state_B = jnp.zeros_like(prompt.starts_B, dtype=jnp.int32)
    return state_B, state_B + jnp.asarray(self.num_tokens, jnp.int32)

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all tokens that are not accepted to −∞."""
    state_B, remaining_B = state
    next_BY = self.next_UY[state_B]
    in_time_BY = self.distance_U[next_BY] < per_row(remaining_B)
    allowed_BV = ((next_BY >= 0) & in_time_BY)[:, self.class_V]
    masked_BV = mask_logits(logits_BV, allowed_BV)
    possible_B1 = jnp.any(masked_BV > -jnp.inf, axis=-1, keepdims=True)
    uniform_BV = mask_logits(jnp.zeros_like(logits_BV), allowed_BV)
    return jnp.where(possible_B1, masked_BV, uniform_BV)

  def advance(self, state: PyTree, token_B: Array, log_prob_B: Array) -> PyTree:
    """Follow the transition; tokens that are not accepted keep the state."""
    del log_prob_B
    state_B, remaining_B = state
    next_B = self.next_UY[state_B, self.class_V[token_B]]
    return jnp.where(next_B < 0, state_B, next_B), remaining_B - 1
