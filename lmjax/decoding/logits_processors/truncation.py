# SPDX-License-Identifier: Apache-2.0
"""Truncation of the tail of the distribution."""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.decoding.logits_processors.logits_processor import (
  LogitsProcessor,
  is_max,
  logits_processor_class,
  mask_logits,
  per_row,
  static,
)
from lmjax.types import Array, PyTree

# Partial sums that are computed side by side; enough to be limited by the
# bandwidth of memory.
_LANES = 128


@logits_processor_class
class TopK(LogitsProcessor):
  """Allow the k most likely tokens (Fan et al. 2018, arXiv:1805.04833).

  Ties with the k-th token are allowed too.

  >>> TopK(2)(jnp.array([[1.0, 3.0, 2.0]]))
  [[-inf, 3.0, 2.0]]

  Attributes:
    k: number of tokens, int [] or [B].
    max_k: upper bound of k, part of the compiled program; by default the next
      power of two, so that few programs are compiled.
  """

  k: Array | int
  max_k: int = static(default=0)

  def __post_init__(self):
    """Set the default of `max_k`."""
    if not self.max_k:
      object.__setattr__(
        self, "max_k", 1 << (int(np.max(self.k)) - 1).bit_length()
      )

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    top_BO, _ = jax.lax.top_k(logits_BV, min(self.max_k, logits_BV.shape[-1]))
    # A reduction selects the k-th of them: a slice would make XLA's CPU backend
    # sort the whole vocabulary instead of calling top_k.
    is_top_BO = jnp.arange(top_BO.shape[-1])[None] < per_row(self.k)
    lowest_B1 = jnp.min(
      top_BO, axis=-1, keepdims=True, initial=jnp.inf, where=is_top_BO
    )
    return mask_logits(logits_BV, logits_BV >= lowest_B1)


@logits_processor_class
class TopP(LogitsProcessor):
  """Allow the smallest set of most likely tokens with total probability p.

  Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751). The most likely
  token is always allowed, and so are ties with the last one.

  >>> TopP(0.7)(jnp.log(jnp.array([[0.5, 0.3, 0.2]])))  # 0.5 + 0.3 ≥ 0.7
  [[-0.69, -1.2, -inf]]
  """

  p: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    probability_BV = jax.nn.softmax(logits_BV, axis=-1)
    allowed_BV = _smallest_set(logits_BV, probability_BV, per_row(self.p))
    return mask_logits(logits_BV, allowed_BV)


@logits_processor_class
class MinP(LogitsProcessor):
  """Allow tokens with at least `p` times the probability of the most likely.

  Nguyen et al. 2024 (arXiv:2407.01082).

  >>> MinP(0.5)(jnp.log(jnp.array([[0.5, 0.3, 0.2]])))  # at least 0.25
  [[-0.69, -1.2, -inf]]
  """

  p: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    highest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
    lowest_B1 = highest_B1 + jnp.log(per_row(self.p))
    return mask_logits(logits_BV, logits_BV >= lowest_B1)


@logits_processor_class
class Typical(LogitsProcessor):
  """Allow the most typical tokens with total probability p.

  Locally typical sampling (Meister et al. 2023, arXiv:2202.00666): tokens whose
  surprise −log p is nearest to the entropy come first.
  """

  p: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    log_p_BV = jax.nn.log_softmax(logits_BV, axis=-1)
    typicality_BV = -jnp.abs(log_p_BV + _entropy(log_p_BV))
    allowed_BV = _smallest_set(
      typicality_BV, jnp.exp(log_p_BV), per_row(self.p)
    )
    return mask_logits(logits_BV, allowed_BV)


@logits_processor_class
class Epsilon(LogitsProcessor):
  """Allow tokens with at least probability epsilon, and the most likely one.

  Hewitt et al. 2022 (arXiv:2210.15191).
  """

  epsilon: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    log_p_BV = jax.nn.log_softmax(logits_BV, axis=-1)
    is_likely_BV = log_p_BV >= jnp.log(per_row(self.epsilon))
    return mask_logits(logits_BV, is_likely_BV | is_max(logits_BV))


@logits_processor_class
class Eta(LogitsProcessor):
  """Allow tokens with at least probability eta, and the most likely one.

  eta = min(epsilon, √epsilon · exp(−entropy)): at high entropy, less likely
  tokens are allowed (Hewitt et al. 2022, arXiv:2210.15191).
  """

  epsilon: Array | float

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set the logits of all others to −∞."""
    log_p_BV = jax.nn.log_softmax(logits_BV, axis=-1)
    epsilon_B1 = jnp.log(per_row(self.epsilon))
    eta_B1 = jnp.minimum(epsilon_B1, epsilon_B1 / 2 - _entropy(log_p_BV))
    return mask_logits(logits_BV, (log_p_BV >= eta_B1) | is_max(logits_BV))


def _entropy(log_p_BV: Array) -> Array:
  """Return the entropy of distributions in nats, [B, 1]."""
  finite_BV = jnp.where(log_p_BV > -jnp.inf, log_p_BV, 0.0)
  return -jnp.sum(jnp.exp(log_p_BV) * finite_BV, axis=-1, keepdims=True)


def _smallest_set(score_BV: Array, mass_BV: Array, total_B1: Array) -> Array:
  """Return the fewest tokens of highest score with a total probability.

  The lowest score of the set is found bit by bit, from the probability above 32
  thresholds: floats and their bits have the same order. Sorting would take 20
  ms on a CPU for 50,000 tokens.

  Args:
    score_BV: scores to rank tokens by.
    mass_BV: their probabilities.
    total_B1: minimum total probability.

  Returns:
    bool [B, V]; ties with the lowest score are included.
  """
  order_BV = _ordered_bits(score_BV)
  padding = ((0, 0), (0, -score_BV.shape[1] % _LANES))
  order, mass = (
    jnp.pad(x, padding).reshape(len(x), -1, _LANES) for x in (order_BV, mass_BV)
  )

  def decide(bit: Array, lowest_B1: Array) -> Array:
    """Set a bit of the lowest score if enough probability remains above."""
    higher_B1 = lowest_B1 | jnp.uint32(1 << 31) >> bit.astype(jnp.uint32)
    above = jnp.where(order >= higher_B1[:, :, None], mass, 0.0)
    is_enough_B1 = jnp.sum(above, axis=(1, 2))[:, None] >= total_B1
    return jnp.where(is_enough_B1, higher_B1, lowest_B1)

  zero_B1 = jnp.zeros((len(score_BV), 1), jnp.uint32)
  return order_BV >= jax.lax.fori_loop(0, 32, decide, zero_B1)


def _ordered_bits(number: Array) -> Array:
  """Map float32 to uint32 such that the order is the same."""
  bits = jax.lax.bitcast_convert_type(number.astype(jnp.float32), jnp.uint32)
  sign = jnp.uint32(1 << 31)
  return jnp.where(bits < sign, bits | sign, ~bits)
