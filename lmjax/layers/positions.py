# SPDX-License-Identifier: Apache-2.0
"""Position vectors that are added to token embeddings."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from lmjax.ops.rotary import angles
from lmjax.types import Array


def sinusoids(positions_BT: Array, width: int) -> Array:
  """Encode positions as sines and cosines of geometric wavelengths.

  Vaswani et al. 2017 (arXiv:1706.03762), with the sines in the first half of
  the features and the cosines in the second.

  Args:
    positions_BT: integer positions.
    width: number of features, even.

  Returns:
    float32 [B, T, width].
  """
  half = width // 2
  angle = angles(positions_BT[..., None], 10_000.0 ** (-np.arange(half) / half))
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class LearnedPositions(nn.Module):
  """One trained vector a position.

  Attributes:
    num_positions: how many positions there are; later ones read the last.
    width: width of a vector.
    init_scale: standard deviation at initialization.
    param_dtype: dtype of the table.
  """

  num_positions: int
  width: int
  init_scale: float = 0.02
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, positions_BT: Array) -> Array:
    """Look positions up: int [B, T] to [B, T, width]."""
    table = self.param(
      "embedding",
      nn.initializers.normal(self.init_scale),
      (self.num_positions, self.width),
      self.param_dtype,
    )
    return jnp.take(table, positions_BT, axis=0, mode="clip")
