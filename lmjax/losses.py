# SPDX-License-Identifier: Apache-2.0
"""Losses position by position; nothing here averages.

Losses of a text and its one class read the scores of all classes. Losses of a
text and a class that it has or has not read the margin between them: the score,
and minus the score where it has it not.
"""

import jax
import jax.numpy as jnp

from lmjax.types import Array


def cross_entropy(
  logits_BTV: Array,
  targets_BT: Array,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> Array:
  """Return −log softmax(logits)[target] in nats, float32 [B, T].

  Args:
    logits_BTV: scores.
    targets_BT: int, which of them is right.
    label_smoothing: share of the target that is spread over all of V (Szegedy
      et al. 2016, arXiv:1512.00567).
    z_loss: weight of the squared logarithm of the softmax's normalizer, which
      is added (Chowdhery et al. 2022, arXiv:2204.02311).
  """
  logits_BTV = logits_BTV.astype(jnp.float32)
  log_normalizer_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
  target_BT = _at(logits_BTV, targets_BT)
  if label_smoothing:
    mean_BT = logits_BTV.mean(axis=-1)
    target_BT += label_smoothing * (mean_BT - target_BT)
  loss_BT = log_normalizer_BT - target_BT
  return loss_BT + z_loss * log_normalizer_BT**2 if z_loss else loss_BT


def distillation(
  scores_BY: Array, teacher_BY: Array, temperature: float
) -> Array:
  """Return the cross-entropy of another model's classes, float32 [B].

  Hinton et al. 2015 (arXiv:1503.02531), section 2: of both softmaxes at a
  temperature τ, times τ², so that its gradient is as large at any.

  Args:
    scores_BY: scores of the model that learns.
    teacher_BY: scores of the other one.
    temperature: above 0; the higher, the more small scores count.
  """
  shares_BY = jax.nn.softmax(teacher_BY.astype(jnp.float32) / temperature)
  nats_BY = -jax.nn.log_softmax(scores_BY.astype(jnp.float32) / temperature)
  return temperature**2 * jnp.sum(shares_BY * nats_BY, axis=-1)


def focal_cross_entropy(
  scores_BY: Array, targets_B: Array, gamma: float
) -> Array:
  """Return the cross-entropy times (1 − p)^γ, p the target's probability.

  Lin et al. 2017 (arXiv:1708.02002), of a softmax. float32 [B].
  """
  scores_BY = scores_BY.astype(jnp.float32)
  log_normalizer_B = jax.nn.logsumexp(scores_BY, axis=-1)
  rivals_B = jax.nn.logsumexp(_rivals(scores_BY, targets_B), axis=-1)
  nats_B = log_normalizer_B - _at(scores_BY, targets_B)
  return jnp.exp(gamma * (rivals_B - log_normalizer_B)) * nats_B


def multiclass_hinge(scores_BY: Array, targets_B: Array) -> Array:
  """Return how far the best other class is above the target less 1, or 0.

  Crammer & Singer 2001. float32 [B].
  """
  scores_BY = scores_BY.astype(jnp.float32)
  rival_B = jnp.max(_rivals(scores_BY, targets_B), axis=-1)
  return jax.nn.relu(1.0 + rival_B - _at(scores_BY, targets_B))


def margins(scores_BY: Array, has_BY: Array) -> Array:
  """Return the scores of classes that texts have, minus those of the others."""
  return jnp.where(has_BY > 0, scores_BY, -scores_BY).astype(jnp.float32)


def binary_cross_entropy(margin: Array) -> Array:
  """Return −log sigmoid(margin) in nats."""
  return jax.nn.softplus(-margin)


def binary_focal(margin: Array, gamma: float) -> Array:
  """Return the same times (1 − sigmoid(margin))^γ (Lin et al. 2017)."""
  weight = jnp.exp(gamma * jax.nn.log_sigmoid(-margin))
  return weight * binary_cross_entropy(margin)


def squared_error(margin: Array) -> Array:
  """Return the squared distance of a score from 1, or from −1 without it."""
  return jnp.square(1.0 - margin)


def hinge(margin: Array) -> Array:
  """Return what a margin lacks to 1, or 0 (Cortes & Vapnik 1995)."""
  return jax.nn.relu(1.0 - margin)


def exponential(margin: Array) -> Array:
  """Return exp(−margin), which boosting makes low (Freund & Schapire 1997)."""
  return jnp.exp(-margin)


def _at(scores_BY: Array, targets_B: Array) -> Array:
  """Return the scores of the targets, [..., C] to [...]."""
  return jnp.take_along_axis(scores_BY, targets_B[..., None], axis=-1)[..., 0]


def _rivals(scores_BY: Array, targets_B: Array) -> Array:
  """Return the scores with the targets' at minus infinity."""
  is_target_BY = (
    jnp.expand_dims(jnp.arange(scores_BY.shape[-1]), range(targets_B.ndim))
    == targets_B[..., None]
  )
  return jnp.where(is_target_BY, -jnp.inf, scores_BY)
