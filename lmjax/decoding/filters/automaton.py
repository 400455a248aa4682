# SPDX-License-Identifier: Apache-2.0
"""Texts of a language that a finite automaton knows."""

import jax.numpy as jnp

from lmjax.decoding.filters.filter import (
  Filter,
  Prompt,
  filter_class,
  keep,
  per_row,
)
from lmjax.types import Array, PyTree


@filter_class
class Automaton(Filter):
  """Draw tokens that an automaton takes, and end where it accepts.

  Constraints on a text, such as a regular expression, as an automaton whose
  symbols are tokens (Willard and Louf 2023, arXiv:2307.09702). Tokens that lead
  from each state to the same one are of one class, so that the table stays
  small for a large vocabulary.

  A text is led to its end in time: no token is drawn behind which it could not
  be brought to an accepting state any more. For that, `distance_S[0]` must not
  exceed `num_tokens`. Of what the automaton takes, some token is always drawn:
  if filters before this one left none, all are alike likely.

  Attributes:
    next_SC: int32, the state behind each class of tokens; −1 for none. A text
      begins in state 0. `<eos>` leads from accepting states to themselves.
    class_V: int32, the class of each token.
    distance_S: int32, how many tokens lead from a state to an accepting one.
    num_tokens: how many tokens are drawn at most.
  """

  next_SC: Array
  class_V: Array
  distance_S: Array
  num_tokens: Array | int = 1 << 30

  def start(self, prompt: Prompt, vocab_size: int) -> PyTree:
    """Begin behind the prompt, which may be any text."""
    del vocab_size
    state_B = jnp.zeros_like(prompt.starts_B, dtype=jnp.int32)
    return state_B, state_B + jnp.asarray(self.num_tokens, jnp.int32)

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all other tokens to −∞."""
    state_B, left_B = state
    next_BC = self.next_SC[state_B]
    in_time_BC = self.distance_S[next_BC] < per_row(left_B)
    allowed_BV = ((next_BC >= 0) & in_time_BC)[:, self.class_V]
    left_BV = keep(logits_BV, allowed_BV)
    possible_B1 = jnp.any(left_BV > -jnp.inf, axis=-1, keepdims=True)
    alike_BV = keep(jnp.zeros_like(logits_BV), allowed_BV)
    return jnp.where(possible_B1, left_BV, alike_BV)

  def advance(self, state: PyTree, token_B: Array, log_prob_B: Array) -> PyTree:
    """Follow the token; one that the automaton does not take leads nowhere."""
    del log_prob_B
    state_B, left_B = state
    next_B = self.next_SC[state_B, self.class_V[token_B]]
    return jnp.where(next_B < 0, state_B, next_B), left_B - 1
