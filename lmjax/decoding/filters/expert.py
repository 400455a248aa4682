# SPDX-License-Identifier: Apache-2.0
"""Guidance by another model (expert or anti-expert)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmjax.decoding.filters.filter import (
  Filter,
  Prompt,
  filter_class,
  per_row,
  static,
)
from lmjax.types import Array, PyTree

_LOWEST = -100.0  # nats; no model is more sure than that of what cannot be


@filter_class
class Expert(Filter):
  """Add the log-probabilities of another model, times a weight.

  With weight 1 that is a product of experts (Hinton 2002). With λ / (1 − λ)
  and a temperature of 1 / (1 − λ) behind it, it is the log-linear mixture of
  both models. An expert with weight α and another one, the antiexpert, with −α
  are DExperts (Liu et al. 2021, arXiv:2105.03023).

  It reads what the first model reads: the same prompt, then each token that was
  drawn.

  Attributes:
    variables: of the other model.
    weight: how much it counts; below 0 to avoid what it says.
    step: turns variables, tokens [B, T], a carry, and where documents begin
      (bool [B, T] or None), into logits behind the last token and a carry.
    initial_carry: makes an empty carry for so many rows and tokens.
    num_tokens: how many tokens are drawn at most.
    max_context: how many tokens a carry holds; None for any number. Prompts and
      what is drawn must fit.
  """

  variables: PyTree
  weight: Array | float
  step: Callable[..., tuple[Array, PyTree]] = static()
  initial_carry: Callable[[int, int], PyTree] = static()
  num_tokens: int = static()
  max_context: int | None = static()

  def start(self, prompt: Prompt, vocab_size: int) -> PyTree:
    """Read the prompt."""
    del vocab_size
    if self.max_context is not None:  # what is left out is padding
      left_out = max(prompt.tokens_BT.shape[1] - self.max_context, 0)
      prompt = Prompt(
        prompt.tokens_BT[:, left_out:], prompt.starts_B - left_out
      )
    batch, time = prompt.tokens_BT.shape
    capacity = time + self.num_tokens
    if self.max_context is not None:
      capacity = min(capacity, self.max_context)
    carry = self.initial_carry(batch, capacity)
    return self.step(self.variables, prompt.tokens_BT, carry, prompt.resets())

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Add them; what cannot be drawn stays so."""
    log_probs_BV = jax.nn.log_softmax(state[0].astype(jnp.float32))
    said_BV = per_row(self.weight) * jnp.maximum(log_probs_BV, _LOWEST)
    return logits_BV + said_BV

  def advance(self, state: PyTree, token_B: Array, log_prob_B: Array) -> PyTree:
    """Read the token."""
    del log_prob_B
    return self.step(self.variables, token_B[:, None], state[1], None)
