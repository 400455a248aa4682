# SPDX-License-Identifier: Apache-2.0
"""Losses on the activations of a recurrence: their size and their change."""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.types import Array


class ActivationRegularization(nn.Module):
  """Sow AR and TAR (Merity et al. 2017, arXiv:1708.01009) into "losses".

  Both are means over positions and features. Like dropout they are on exactly
  while there is a key "dropout", so evaluation measures the text alone.

  Attributes:
    size: weight α of the mean square of the activations, AR.
    change: weight β of the mean square of its change from token to token, TAR.
  """

  size: float
  change: float

  @nn.compact
  def __call__(self, dropped_BTD: Array, hidden_BTD: Array) -> None:
    """Weigh activations.

    Args:
      dropped_BTD: after dropout, for AR.
      hidden_BTD: before dropout, for TAR.
    """
    if not self.has_rng("dropout"):
      return
    if self.size:
      self.sow("losses", "size", self.size * _mean_square(dropped_BTD))
    if self.change and hidden_BTD.shape[1] > 1:
      change_BTD = hidden_BTD[:, 1:] - hidden_BTD[:, :-1]
      self.sow("losses", "change", self.change * _mean_square(change_BTD))


def _mean_square(x: Array) -> Array:
  return jnp.mean(jnp.square(x.astype(jnp.float32)))
