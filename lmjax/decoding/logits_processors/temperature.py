# SPDX-License-Identifier: Apache-2.0
"""Temperature and greedy selection."""

import jax.numpy as jnp

from lmjax.decoding.logits_processors.logits_processor import (
  LogitsProcessor,
  is_max,
  logits_processor_class,
  mask_logits,
  per_row,
)
from lmjax.types import Array, PyTree


@logits_processor_class
class Temperature(LogitsProcessor):
  """Divide logits: below 1 sharpens, above 1 flattens the distribution.

  >>> Temperature(0.5)(jnp.array([[1.0, 3.0]]))
  [[2.0, 6.0]]
  """

  temperature: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Scale the logits."""
    return logits_BV / per_row(self.temperature)


@logits_processor_class
class Greedy(LogitsProcessor):
  """Select the most likely token; among equals, the first.

  >>> Greedy()(jnp.array([[1.0, 3.0, 3.0]]))
  [[-inf, 3.0, -inf]]
  """

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set all logits but the highest to −∞."""
    vocab_size = logits_BV.shape[-1]
    vocabulary_V = jnp.arange(vocab_size)
    # Two reductions of numbers are faster on a CPU than argmax, which reduces
    # pairs.
    max_BV = jnp.where(is_max(logits_BV), vocabulary_V, vocab_size)
    first_B1 = jnp.min(max_BV, axis=-1, keepdims=True)
    return mask_logits(logits_BV, vocabulary_V[None] == first_B1)
