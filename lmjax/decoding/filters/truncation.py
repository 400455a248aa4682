# SPDX-License-Identifier: Apache-2.0
"""Leaving out the unlikely: the tail of the distribution."""

import jax
import jax.numpy as jnp

from lmjax.decoding.filters.filter import (
  Filter,
  filter_class,
  keep,
  per_row,
  static,
)
from lmjax.types import Array, PyTree


@filter_class
class TopK(Filter):
  """Keep the k most likely tokens (Fan et al. 2018, arXiv:1805.04833).

  Tokens as likely as the k-th are kept too.
  """

  k: int = static()

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    k = min(self.k, logits_BV.shape[-1])
    lowest_B1 = jax.lax.top_k(logits_BV, k)[0][:, -1:]
    return keep(logits_BV, logits_BV >= lowest_B1)


@filter_class
class TopP(Filter):
  """Keep the fewest most likely tokens that together have probability p.

  Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751). The most likely
  token is always kept.
  """

  p: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    probability_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    kept_BV = jnp.where(before_BV < per_row(self.p), sorted_BV, jnp.inf)
    lowest_B1 = jnp.min(kept_BV, axis=-1, keepdims=True)
    return keep(logits_BV, logits_BV >= lowest_B1)
