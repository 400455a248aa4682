# SPDX-License-Identifier: Apache-2.0
"""Choices about the next token, as functions from logits to logits.

Filters compose from left to right; a token with logit −∞ is never drawn. The
usual order is bans, temperature, top-k, top-p.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from lmjax.types import Array

Filter = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Ban:
  """Never draw some tokens."""

  tokens: tuple[int, ...]

  def __call__(self, logits_BV: Array) -> Array:
    """Set their logits to −∞; others, if all are −∞, become alike likely."""
    tokens = jnp.array(self.tokens, jnp.int32)
    left_BV = logits_BV.at[:, tokens].set(-jnp.inf)
    possible_B1 = jnp.any(left_BV > -jnp.inf, axis=-1, keepdims=True)
    alike_BV = jnp.zeros_like(left_BV).at[:, tokens].set(-jnp.inf)
    return jnp.where(possible_B1, left_BV, alike_BV)


@dataclasses.dataclass(frozen=True)
class Greedy:
  """Draw the most likely token; of equals, the first."""

  def __call__(self, logits_BV: Array) -> Array:
    """Set all logits but the highest to −∞."""
    vocabulary = jnp.arange(logits_BV.shape[-1])
    best_B1 = jnp.argmax(logits_BV, axis=-1)[:, None]
    return jnp.where(vocabulary == best_B1, logits_BV, -jnp.inf)


@dataclasses.dataclass(frozen=True)
class Temperature:
  """Divide logits: below 1 sharpens, above 1 flattens."""

  temperature: float

  def __call__(self, logits_BV: Array) -> Array:
    """Scale the logits."""
    return logits_BV / self.temperature


@dataclasses.dataclass(frozen=True)
class TopK:
  """Keep the k most likely tokens (Fan et al. 2018, arXiv:1805.04833).

  Tokens as likely as the k-th are kept too.
  """

  k: int

  def __call__(self, logits_BV: Array) -> Array:
    """Set the logits of all others to −∞."""
    k = min(self.k, logits_BV.shape[-1])
    lowest_B1 = jax.lax.top_k(logits_BV, k)[0][:, -1:]
    return jnp.where(logits_BV < lowest_B1, -jnp.inf, logits_BV)


@dataclasses.dataclass(frozen=True)
class TopP:
  """Keep the fewest most likely tokens that together have probability p.

  Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751). The most likely
  token is always kept.
  """

  p: float

  def __call__(self, logits_BV: Array) -> Array:
    """Set the logits of all others to −∞."""
    sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    probability_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    kept_BV = jnp.where(before_BV < self.p, sorted_BV, jnp.inf)
    lowest_B1 = jnp.min(kept_BV, axis=-1, keepdims=True)
    return jnp.where(logits_BV < lowest_B1, -jnp.inf, logits_BV)


def chain(filters: Sequence[Filter]) -> Filter:
  """Apply filters one after the other."""

  def apply(logits_BV: Array) -> Array:
    for each in filters:
      logits_BV = each(logits_BV)
    return logits_BV

  return apply
