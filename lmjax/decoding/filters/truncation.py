# SPDX-License-Identifier: Apache-2.0
"""Leaving out the unlikely: the tail of the distribution."""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.decoding.filters.filter import (
  Filter,
  filter_class,
  is_best,
  keep,
  per_row,
  static,
)
from lmjax.types import Array, PyTree

_LANES = 128  # sums that run side by side, which is as fast as memory is


@filter_class
class TopK(Filter):
  """Keep the k most likely tokens (Fan et al. 2018, arXiv:1805.04833).

  Tokens as likely as the k-th are kept too.

  Attributes:
    k: how many, int [] or [B].
    most: at least k; programs are compiled for it. By default the next power of
      two, so that there are few of them.
  """

  k: Array | int
  most: int = static(default=0)

  def __post_init__(self):
    """Bound k."""
    if not self.most:
      object.__setattr__(
        self, "most", 1 << (int(np.max(self.k)) - 1).bit_length()
      )

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    best_BK, _ = jax.lax.top_k(logits_BV, min(self.most, logits_BV.shape[-1]))
    # The k-th of them; but a slice would turn top_k into a sort on a CPU.
    is_kept_BK = jnp.arange(best_BK.shape[-1]) < per_row(self.k)
    lowest_B1 = jnp.min(
      best_BK, axis=-1, keepdims=True, initial=jnp.inf, where=is_kept_BK
    )
    return keep(logits_BV, logits_BV >= lowest_B1)


@filter_class
class TopP(Filter):
  """Keep the fewest most likely tokens that together have probability p.

  Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751). The most likely
  token is always kept, and so are tokens as likely as the last one.
  """

  p: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    probability_BV = jax.nn.softmax(logits_BV, axis=-1)
    kept_BV = _fewest(logits_BV, probability_BV, per_row(self.p))
    return keep(logits_BV, kept_BV)


@filter_class
class MinP(Filter):
  """Keep tokens at least `share` as likely as the most likely one.

  Nguyen et al. 2024, arXiv:2407.01082.
  """

  share: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    highest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
    lowest_B1 = highest_B1 + jnp.log(per_row(self.share))
    return keep(logits_BV, logits_BV >= lowest_B1)


@filter_class
class Typical(Filter):
  """Keep the fewest tokens of probability p whose surprise is as expected.

  Those whose −log p is nearest to the entropy: locally typical sampling
  (Meister et al. 2023, arXiv:2202.00666).
  """

  p: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    log_p_BV = jax.nn.log_softmax(logits_BV, axis=-1)
    nearness_BV = -jnp.abs(log_p_BV + _entropy(log_p_BV))
    kept_BV = _fewest(nearness_BV, jnp.exp(log_p_BV), per_row(self.p))
    return keep(logits_BV, kept_BV)


@filter_class
class Epsilon(Filter):
  """Keep tokens at least as likely as epsilon, and the most likely one.

  Hewitt et al. 2022, arXiv:2210.15191.
  """

  epsilon: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    log_p_BV = jax.nn.log_softmax(logits_BV, axis=-1)
    likely_BV = log_p_BV >= jnp.log(per_row(self.epsilon))
    return keep(logits_BV, likely_BV | is_best(logits_BV))


@filter_class
class Eta(Filter):
  """Keep tokens at least as likely as eta, and the most likely one.

  eta = min(epsilon, √epsilon · exp(−entropy)): where much is possible, less
  likely tokens are kept (Hewitt et al. 2022, arXiv:2210.15191).
  """

  epsilon: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    log_p_BV = jax.nn.log_softmax(logits_BV, axis=-1)
    epsilon_B1 = jnp.log(per_row(self.epsilon))
    eta_B1 = jnp.minimum(epsilon_B1, epsilon_B1 / 2 - _entropy(log_p_BV))
    return keep(logits_BV, (log_p_BV >= eta_B1) | is_best(logits_BV))


def _entropy(log_p_BV: Array) -> Array:
  """Return the entropy of distributions in nats, [B, 1]."""
  finite_BV = jnp.where(log_p_BV > -jnp.inf, log_p_BV, 0.0)
  return -jnp.sum(jnp.exp(log_p_BV) * finite_BV, axis=-1, keepdims=True)


def _fewest(score_BV: Array, mass_BV: Array, share_B1: Array) -> Array:
  """Tell the fewest tokens of the highest scores that together have a mass.

  Nothing is sorted, which takes a CPU 20 ms for 50,000 tokens. The lowest
  score of those kept is found bit by bit instead, from the sums of masses
  above 32 thresholds; floats and their bits have the same order.

  Returns:
    bool [B, V]; scores equal to the lowest are all kept.
  """
  order_BV = _ordered_bits(score_BV)
  padding = ((0, 0), (0, -score_BV.shape[1] % _LANES))
  order, mass = (
    jnp.pad(x, padding).reshape(len(x), -1, _LANES) for x in (order_BV, mass_BV)
  )

  def decide(place: Array, lowest_B1: Array) -> Array:
    """Set a bit of the lowest score if the mass above it is enough still."""
    higher_B1 = lowest_B1 | jnp.uint32(1 << 31) >> place.astype(jnp.uint32)
    above = jnp.where(order >= higher_B1[:, :, None], mass, 0.0)
    enough_B1 = jnp.sum(above, axis=(1, 2))[:, None] >= share_B1
    return jnp.where(enough_B1, higher_B1, lowest_B1)

  nothing_B1 = jnp.zeros((len(score_BV), 1), jnp.uint32)
  return order_BV >= jax.lax.fori_loop(0, 32, decide, nothing_B1)


def _ordered_bits(number: Array) -> Array:
  """Turn float32 numbers into uint32 that have the same order."""
  bits = jax.lax.bitcast_convert_type(number.astype(jnp.float32), jnp.uint32)
  sign = jnp.uint32(1 << 31)
  return jnp.where(bits < sign, bits | sign, ~bits)
