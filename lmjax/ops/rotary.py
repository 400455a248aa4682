# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding: positions as rotations of queries and keys."""

import jax.numpy as jnp
import numpy as np

from lmjax.types import Array

_BITS = 10  # positions are read in digits of as many, as exact as one digit is
BASE = 10_000.0  # Su et al. 2021, section 3.2.2


def rotate(x_BTHK: Array, positions_BT: Array, base: float = BASE) -> Array:
  """Rotate each pair of features by an angle that grows with the position.

  The dot product of two rotated vectors depends on the distance of their
  positions alone (Su et al. 2021, arXiv:2104.09864). Feature k is paired with
  feature k + K/2.

  Args:
    x_BTHK: queries or keys, K even.
    positions_BT: int32 positions, counted in tokens.
    base: the wavelength of the slowest pair is 2π·base tokens.

  Returns:
    An array of the shape and dtype of `x_BTHK`.
  """
  half = x_BTHK.shape[-1] // 2
  angle = angles(
    positions_BT[:, :, None, None], base ** (-np.arange(half) / half)
  )
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  first, second = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return rotated.astype(x_BTHK.dtype)


def angles(positions: Array, frequencies: np.ndarray) -> Array:
  """Multiply positions by frequencies, up to multiples of 2π, in float32.

  A float32 product is off by 0.1 radians at position 1,000,000; this is off by
  less than 0.001 at any, for a position is taken apart into digits, and what a
  digit's unit turns by is known in float64 and reduced beforehand.

  Args:
    positions: int32 positions from 0 on, of any shape.
    frequencies: radians a position, float64; the shapes must broadcast.
  """
  angle, digits = 0.0, positions
  for place in range(0, 31, _BITS):
    unit = np.mod(frequencies * 2.0**place, 2 * np.pi).astype(np.float32)
    unit = np.expand_dims(unit, tuple(range(digits.ndim - unit.ndim)))
    angle += (digits & (2**_BITS - 1)).astype(jnp.float32) * unit
    digits = digits >> _BITS
  return angle
