# SPDX-License-Identifier: Apache-2.0
"""What users think of tokens."""

import jax.numpy as jnp

from lmjax.decoding.filters.filter import Filter, filter_class
from lmjax.types import Array, PyTree


@filter_class
class LogitBias(Filter):
  """Make tokens more or less likely, whatever the text is.

  Attributes:
    bias: finite numbers, [V] or [B, V].
  """

  bias: Array

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Add the bias to the logits."""
    return logits_BV + jnp.asarray(self.bias, logits_BV.dtype)
