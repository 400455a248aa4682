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
