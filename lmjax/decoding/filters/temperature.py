# SPDX-License-Identifier: Apache-2.0
"""How sharp the distribution is that tokens are drawn from."""

import jax.numpy as jnp

from lmjax.decoding.filters.filter import (
  Filter,
  filter_class,
  is_best,
  keep,
  per_row,
)
from lmjax.types import Array, PyTree


@filter_class
class Temperature(Filter):
  """Divide logits: below 1 sharpens, above 1 flattens."""

  temperature: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Scale the logits."""
    return logits_BV / per_row(self.temperature)


@filter_class
class Greedy(Filter):
  """Draw the most likely token; of equals, the first."""

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set all logits but the highest to −∞."""
    vocab_size = logits_BV.shape[-1]
    vocabulary_V = jnp.arange(vocab_size)
    # Two reductions of numbers, which a CPU does faster than one of pairs.
    best_BV = jnp.where(is_best(logits_BV), vocabulary_V, vocab_size)
    first_B1 = jnp.min(best_BV, axis=-1, keepdims=True)
    return keep(logits_BV, vocabulary_V == first_B1)
