# SPDX-License-Identifier: Apache-2.0
"""Biases of tokens."""

import jax.numpy as jnp

from lmjax.decoding.logits_processors.logits_processor import (
  LogitsProcessor,
  logits_processor_class,
)
from lmjax.types import Array, PyTree


@logits_processor_class
class LogitBias(LogitsProcessor):
  """Add a constant to the logits of tokens.

  Attributes:
    bias: finite numbers, [V] or [B, V].
  """

  bias: Array

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Add the bias."""
    return logits_BV + jnp.atleast_2d(jnp.asarray(self.bias, logits_BV.dtype))
