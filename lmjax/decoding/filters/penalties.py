# SPDX-License-Identifier: Apache-2.0
"""Making less likely what a text holds already."""

import jax.numpy as jnp

from lmjax.decoding.filters.filter import Filter, Prompt, filter_class, per_row
from lmjax.decoding.filters.recent import is_among, tokens_of
from lmjax.types import Array


@filter_class
class RepetitionPenalty(Filter):
  """Divide the logits of tokens that have occurred, the prompt's among them.

  A penalty above 1 makes them less likely: negative logits are multiplied
  (Keskar et al. 2019, arXiv:1909.05858, and transformers since).
  """

  penalty: Array | float

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Note what occurs in a text: bool [B, V]."""
    return is_among(tokens_of(prompt), vocab_size)

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Move logits of what has occurred toward −∞."""
    penalty_B1 = per_row(self.penalty)
    positive_BV = logits_BV > 0
    less_BV = logits_BV * jnp.where(positive_BV, 1 / penalty_B1, penalty_B1)
    return jnp.where(state, less_BV, logits_BV)

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Note a token."""
    return state.at[jnp.arange(len(token_B)), token_B].set(True)


@filter_class
class CountPenalty(Filter):
  """Subtract from the logits of tokens that were drawn; the prompt is free.

  logit − presence · [count > 0] − frequency · count, as the API of OpenAI
  defines its penalties. Negative numbers make tokens more likely.
  """

  presence: Array | float = 0.0
  frequency: Array | float = 0.0

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Count nothing yet: int32 [B, V]."""
    return jnp.zeros((len(prompt.starts_B), vocab_size), jnp.int32)

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Subtract the penalties."""
    presence_BV = per_row(self.presence) * (state > 0)
    return logits_BV - presence_BV - per_row(self.frequency) * state

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Count a token."""
    return state.at[jnp.arange(len(token_B)), token_B].add(1)
