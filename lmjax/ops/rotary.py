# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding: positions as rotations of queries and keys."""

import jax.numpy as jnp

from lmjax.types import Array


def rotate(x_BTHK: Array, positions_BT: Array, base: float = 10_000.0) -> Array:
  """Rotate each pair of features by an angle that grows with the position.

  The dot product of two rotated vectors depends on the distance of their
  positions alone (Su et al. 2021, arXiv:2104.09864). Feature k is paired with
  feature k + K/2.

  Args:
    x_BTHK: queries or keys, K even.
    positions_BT: integer positions, counted in tokens. Angles are float32:
      the fastest pair is off by 0.01 radians at position 100,000, 0.1 at a
      million, so let memory be emptied before that.
    base: the wavelength of the slowest pair is 2π·base tokens.

  Returns:
    An array of the shape and dtype of `x_BTHK`.
  """
  half = x_BTHK.shape[-1] // 2
  frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angle = positions_BT[:, :, None, None].astype(jnp.float32) * frequency
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  first, second = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return rotated.astype(x_BTHK.dtype)
