# SPDX-License-Identifier: Apache-2.0
"""Losses position by position; nothing here averages."""

import jax
import jax.numpy as jnp

from lmjax.types import Array


def cross_entropy(logits_BTV: Array, targets_BT: Array) -> Array:
  """Return −log softmax(logits)[target] in nats, float32 [B, T]."""
  logits_BTV = logits_BTV.astype(jnp.float32)
  log_normalizer_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
  target_BT1 = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)
  return log_normalizer_BT - target_BT1[..., 0]


def distillation(
  scores_BC: Array, teacher_BC: Array, temperature: float
) -> Array:
  """Return the cross-entropy of another model's classes, float32 [B].

  Hinton et al. 2015 (arXiv:1503.02531), section 2: of both softmaxes at a
  temperature τ, times τ², so that its gradient is as large at any.

  Args:
    scores_BC: scores of the model that learns.
    teacher_BC: scores of the other one.
    temperature: above 0; the higher, the more small scores count.
  """
  shares_BC = jax.nn.softmax(teacher_BC.astype(jnp.float32) / temperature)
  nats_BC = -jax.nn.log_softmax(scores_BC.astype(jnp.float32) / temperature)
  return temperature**2 * jnp.sum(shares_BC * nats_BC, axis=-1)
