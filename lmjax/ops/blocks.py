# SPDX-License-Identifier: Apache-2.0
"""Splitting time into blocks."""

import jax.numpy as jnp

from lmjax.types import Array


def split_time(x_BT: Array, size: int, fill: int = 0) -> Array:
  """Split [B, T, ...] into [number, B, size, ...], padded at the end.

  Rows of the batch stay together, as they may be spread over devices.

  >>> split_time([[1, 2, 3], [4, 5, 6]], 2)
  [[[1, 2], [4, 5]], [[3, 0], [6, 0]]]
  """
  batch, time = x_BT.shape[:2]
  number = -(-time // size)
  padding = [(0, 0), (0, number * size - time)] + [(0, 0)] * (x_BT.ndim - 2)
  x_BT = jnp.pad(x_BT, padding, constant_values=fill)
  split = x_BT.reshape(batch, number, size, *x_BT.shape[2:])
  return jnp.swapaxes(split, 0, 1)
