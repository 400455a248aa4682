# SPDX-License-Identifier: Apache-2.0
"""Penalties of tokens that occurred before."""

import jax.numpy as jnp

from lmjax.decoding.logits_processors.logits_processor import (
  LogitsProcessor,
  Prompt,
  logits_processor_class,
  per_row,
)
from lmjax.decoding.logits_processors.token_history import is_among, tokens_of
from lmjax.types import Array


@logits_processor_class
class RepetitionPenalty(LogitsProcessor):
  """Penalize tokens that occurred in the prompt or text.

  Positive logits are divided by the penalty and negative ones multiplied, so a
  penalty above 1 makes tokens less likely (Keskar et al. 2019,
  arXiv:1909.05858).
  """

  penalty: Array | float

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Return which tokens occur in the prompt, bool [B, V]."""
    return is_among(tokens_of(prompt), vocab_size)

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Move the logits of tokens that occurred toward −∞."""
    penalty_B1 = per_row(self.penalty)
    positive_BV = logits_BV > 0
    penalized_BV = logits_BV * jnp.where(
      positive_BV, 1 / penalty_B1, penalty_B1
    )
    return jnp.where(state, penalized_BV, logits_BV)

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Record the token."""
    return state.at[jnp.arange(len(token_B)), token_B].set(True)


@logits_processor_class
class CountPenalty(LogitsProcessor):
  """Penalize tokens by how often they were generated; the prompt is ignored.

  logit − presence · [count > 0] − frequency · count, as in the OpenAI API.
  Negative numbers make tokens more likely.
  """

  presence: Array | float = 0.0
  frequency: Array | float = 0.0

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Start with counts of 0, int32 [B, V]."""
    return jnp.zeros((len(prompt.starts_B), vocab_size), jnp.int32)

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Subtract the penalties."""
    presence_BV = per_row(self.presence) * (state > 0)
    return logits_BV - presence_BV - per_row(self.frequency) * state

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Count the token."""
    return state.at[jnp.arange(len(token_B)), token_B].add(1)
