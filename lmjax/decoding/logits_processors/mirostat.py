# SPDX-License-Identifier: Apache-2.0
"""Mirostat: sampling with a target surprise."""

import math

import jax
import jax.numpy as jnp

from lmjax.decoding.logits_processors.logits_processor import (
  LogitsProcessor,
  Prompt,
  is_max,
  logits_processor_class,
  mask_logits,
  per_row,
)
from lmjax.types import Array


@logits_processor_class
class Mirostat(LogitsProcessor):
  """Exclude tokens above a maximum surprise that adapts to the text.

  Version 2 of Basu et al. 2021 (arXiv:2007.14966). The surprise of a token is
  measured in the distribution that it was sampled from, as in llama.cpp, so
  `tau` is the mean surprise of a text.

  Attributes:
    tau: target surprise, in bits per token.
    eta: learning rate of the maximum.
  """

  tau: Array | float
  eta: Array | float = 0.1

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Start with a maximum of 2 tau bits, float32 [B]."""
    tau_B = jnp.asarray(self.tau, jnp.float32)
    return jnp.broadcast_to(2 * tau_B, (len(prompt.starts_B),))

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Set the logits of more surprising tokens to −∞."""
    bits_BV = -jax.nn.log_softmax(logits_BV, axis=-1) / math.log(2)
    return mask_logits(
      logits_BV, (bits_BV <= per_row(state)) | is_max(logits_BV)
    )

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Lower the maximum after a token above the target, and raise it below."""
    error_B = -log_prob_B / math.log(2) - self.tau
    return state - self.eta * error_B
