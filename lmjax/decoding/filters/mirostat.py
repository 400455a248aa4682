# SPDX-License-Identifier: Apache-2.0
"""Holding the surprise of a text where one wants it."""

import math

import jax
import jax.numpy as jnp

from lmjax.decoding.filters.filter import (
  Filter,
  Prompt,
  filter_class,
  is_best,
  keep,
  per_row,
)
from lmjax.types import Array


@filter_class
class Mirostat(Filter):
  """Keep tokens below a surprise that follows what came (version 2).

  Basu et al. 2021, arXiv:2007.14966. The surprise of what came is that of the
  distribution it was drawn from, as in llama.cpp, so `tau` is what a text
  has on average.

  Attributes:
    tau: the surprise that is aimed at, in bits a token.
    eta: how fast the bound follows.
  """

  tau: Array | float
  eta: Array | float = 0.1

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Begin with a bound of 2 tau bits: float32 [B]."""
    tau_B = jnp.asarray(self.tau, jnp.float32)
    return jnp.broadcast_to(2 * tau_B, (len(prompt.starts_B),))

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Set the logits of more surprising tokens to −∞, but the best one's."""
    bits_BV = -jax.nn.log_softmax(logits_BV, axis=-1) / math.log(2)
    return keep(logits_BV, (bits_BV <= per_row(state)) | is_best(logits_BV))

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Lower the bound where a token surprised more than it should."""
    error_B = -log_prob_B / math.log(2) - self.tau
    return state - self.eta * error_B
