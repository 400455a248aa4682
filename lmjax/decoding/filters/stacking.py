# SPDX-License-Identifier: Apache-2.0
"""Filters of several texts as one filter, with a number for each row."""

from collections.abc import Hashable, Sequence

import jax
import numpy as np

from lmjax.types import PyTree


def kind(filters: PyTree) -> Hashable:
  """Name what filters must have in common to be stacked.

  That is all but their numbers: structure, static fields, and arrays. Of two
  temperatures, 0.5 and 0.9, the kinds are equal; of two `TopK`, with 4 and 5,
  they are not.
  """
  leaves, structure = jax.tree.flatten(filters)
  arrays = (np.asarray(leaf) for leaf in leaves)
  return structure, tuple(
    (array.dtype.kind, array.shape, array.tobytes() if array.ndim else b"")
    for array in arrays
  )


def stack(filters: Sequence[PyTree], rows: int) -> PyTree:
  """Make filters of one kind a single one for so many rows.

  Args:
    filters: a filter, or a sequence of them, for each of the first rows.
    rows: at least as many; those behind them do as the first one.

  >>> stack([Temperature(0.5), Temperature(0.9)], rows=4)
  Temperature(temperature=array([0.5, 0.9, 0.5, 0.5]))
  """
  padded = [*filters, *[filters[0]] * (rows - len(filters))]

  def join(*leaves) -> np.ndarray:
    return leaves[0] if np.ndim(leaves[0]) else np.array(leaves)

  return jax.tree.map(join, *padded)
