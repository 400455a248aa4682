# SPDX-License-Identifier: Apache-2.0
"""Tokens that must not come."""

import jax.numpy as jnp

from lmjax.decoding.filters.filter import Filter, filter_class, static
from lmjax.types import Array, PyTree


@filter_class
class Ban(Filter):
  """Never draw some tokens."""

  tokens: tuple[int, ...] = static()

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set their logits to −∞; others, if all are −∞, become alike likely."""
    tokens = jnp.array(self.tokens, jnp.int32)
    left_BV = logits_BV.at[:, tokens].set(-jnp.inf)
    possible_B1 = jnp.any(left_BV > -jnp.inf, axis=-1, keepdims=True)
    alike_BV = jnp.zeros_like(left_BV).at[:, tokens].set(-jnp.inf)
    return jnp.where(possible_B1, left_BV, alike_BV)
