# SPDX-License-Identifier: Apache-2.0
"""Matrices whose entries depend on the distance of row and column alone.

Dimension letters:

    P  distances: rows + columns - 1
"""

import jax.numpy as jnp

from lmjax.types import Array


def spread(values_HP: Array, num_rows: int) -> Array:
  """Write one value a distance along the diagonals of a matrix.

  Only reshapes, no gather: differentiated, it sums along the diagonals
  without a scatter.

  >>> spread([[1, 2, 3, 4]], num_rows=2)
  [[[2, 3, 4], [1, 2, 3]]]

  Args:
    values_HP: a value for each distance column - row, from that of the last
      row and the first column on.
    num_rows: number of rows R.

  Returns:
    [H, R, L - R + 1].
  """
  heads, length = values_HP.shape
  rows = jnp.broadcast_to(values_HP[:, None], (heads, num_rows, length))
  flat = jnp.pad(rows.reshape(heads, -1), ((0, 0), (0, num_rows)))
  # In rows that are longer by one, each row starts one position later.
  shifted = flat.reshape(heads, num_rows, length + 1)
  return shifted[:, ::-1, : length - num_rows + 1]
