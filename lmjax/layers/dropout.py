# SPDX-License-Identifier: Apache-2.0
"""Dropout that is on exactly while the caller hands in a key for it."""

import flax.linen as nn

from lmjax.types import Array


class Dropout(nn.Module):
  """Zero a fraction of the features (Srivastava et al. 2014).

  Active when `apply` is given `rngs={"dropout": key}`, so no flag for training
  runs through the models.

  Attributes:
    rate: fraction of features set to zero; the rest is scaled by 1 / (1 -
      rate).
    shared_axes: axes along which the mask is broadcast.
  """

  rate: float
  shared_axes: tuple[int, ...] = ()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Return `x` with features dropped, in its shape and dtype."""
    off = self.rate == 0.0 or not self.has_rng("dropout")
    if off:
      return x
    return nn.Dropout(self.rate, self.shared_axes, deterministic=False)(x)
