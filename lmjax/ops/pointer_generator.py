# SPDX-License-Identifier: Apache-2.0
"""A vocabulary and the tokens of a source as one distribution.

The pointer–generator of See et al. 2017 (arXiv:1704.04368): the probability of
a token is that of the vocabulary distribution times a gate g, plus the
attention weights of its occurrences in the source times 1 - g.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.linear_cross_entropy import CrossEntropy
from lmjax.types import Array

_TINY = 1e-30  # keeps logarithms of probabilities finite


class Pointing(NamedTuple):
  """What a decoder that copies makes of a token.

  Attributes:
    hidden_BTD: what the vocabulary is scored by.
    gate_BT: how much the vocabulary counts, between 0 and 1; the rest is for
      the source.
    weights_BTS: how much each place of the source counts; they add up to 1.
    sources_BTS: the token there, the same at all T.
  """

  hidden_BTD: Array
  gate_BT: Array
  weights_BTS: Array
  sources_BTS: Array

  @property
  def copied_BTS(self) -> Array:
    """The probability that each place of the source is copied."""
    return (1.0 - self.gate_BT[..., None]) * self.weights_BTS


def log_probs(logits_BTV: Array, pointing: Pointing) -> Array:
  """Return the logarithm of each token's probability, float32 [B, T, V]."""
  shares_BTV = pointing.gate_BT[..., None] * jax.nn.softmax(logits_BTV)
  batch, time = pointing.gate_BT.shape
  rows, steps = jnp.arange(batch)[:, None, None], jnp.arange(time)[:, None]
  places = shares_BTV.at[rows, steps, pointing.sources_BTS]
  return jnp.log(jnp.maximum(places.add(pointing.copied_BTS), _TINY))


def cross_entropy(
  logits_BTV: Array, pointing: Pointing, targets_BT: Array, weights_BT: Array
) -> CrossEntropy:
  """Sum the cross-entropy of targets.

  Only tokens of the source are more probable than the vocabulary alone makes
  them, so that the best of all is found without the probabilities of all.
  """
  log_shares_BTV = jax.nn.log_softmax(logits_BTV)
  gate_BT, sources_BTS = pointing.gate_BT, pointing.sources_BTS

  def shares(tokens_BTN: Array) -> Array:
    log_shares = jnp.take_along_axis(log_shares_BTV, tokens_BTN, axis=-1)
    return gate_BT[..., None] * jnp.exp(log_shares)

  here_BTS = sources_BTS == targets_BT[..., None]
  target_BT = shares(targets_BT[..., None])[..., 0]
  target_BT += jnp.sum(jnp.where(here_BTS, pointing.copied_BTS, 0.0), axis=-1)
  nats = -jnp.sum(jnp.log(jnp.maximum(target_BT, _TINY)) * weights_BT)

  same_BSS = sources_BTS[:, 0, :, None] == sources_BTS[:, 0, None]
  copies_BTS = jnp.einsum(
    "BTS,BSZ->BTZ", pointing.copied_BTS, same_BSS.astype(jnp.float32)
  )
  best_BT = jnp.maximum(
    gate_BT * jnp.exp(log_shares_BTV.max(axis=-1)),
    jnp.max(shares(sources_BTS) + copies_BTS, axis=-1),
  )
  right_BT = target_BT >= best_BT * (1.0 - 1e-6)
  correct = jnp.sum(jnp.where(right_BT, weights_BT, 0.0))
  return CrossEntropy(nats, nats, jax.lax.stop_gradient(correct))
