# SPDX-License-Identifier: Apache-2.0
"""Guidance by another model (expert or anti-expert)."""

import jax
import jax.numpy as jnp

from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.logits_processors.logits_processor import (
  LogitsProcessor,
  Prompt,
  logits_processor_class,
  per_row,
  static,
)
from lmjax.types import Array, PyTree

# Nats. Without a minimum, one token that an anti-expert excludes would get an
# infinite logit.
_MIN_LOG_PROB = -100.0


@logits_processor_class
class Expert(LogitsProcessor):
  """Add the log-probabilities of another model, times a weight.

  Weight 1 gives a product of experts (Hinton 2002). Weight λ / (1 − λ),
  followed by a temperature of 1 / (1 − λ), gives the log-linear mixture of both
  models. An expert with weight α together with an anti-expert with −α is
  DExperts (Liu et al. 2021, arXiv:2105.03023).

  The expert processes the same tokens as the model: the prompt, then each
  generated token.

  Attributes:
    model: the expert.
    weight: weight of its log-probabilities; negative for an anti-expert.
    num_tokens: maximum number of generated tokens. With the prompt they must
      fit into the context of the expert.
  """

  model: DecodingModel
  weight: Array | float
  num_tokens: int = static()

  def start(self, prompt: Prompt, vocab_size: int) -> PyTree:
    """Process the prompt."""
    del vocab_size
    max_context = self.model.max_context
    if max_context is not None:
      # Only padding is removed: the prompts themselves fit.
      excess = max(prompt.tokens_BT.shape[1] - max_context, 0)
      prompt = Prompt(prompt.tokens_BT[:, excess:], prompt.starts_B - excess)
    batch, time = prompt.tokens_BT.shape
    capacity = time + self.num_tokens
    if max_context is not None:
      capacity = min(capacity, max_context)
    carry = self.model.initial_carry(batch, capacity)
    return self.model.prefill(prompt.tokens_BT, carry, prompt.resets())

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Add the log-probabilities; tokens at −∞ stay there."""
    log_probs_BV = jax.nn.log_softmax(state[0].astype(jnp.float32))
    log_probs_BV = jnp.maximum(log_probs_BV, _MIN_LOG_PROB)
    return logits_BV + per_row(self.weight) * log_probs_BV

  def advance(self, state: PyTree, token_B: Array, log_prob_B: Array) -> PyTree:
    """Process the token."""
    del log_prob_B
    return self.model.decode_step(token_B, state[1])
