# SPDX-License-Identifier: Apache-2.0
"""Batching of logits processors that differ in numbers only."""

from collections.abc import Hashable, Sequence

import jax
import numpy as np

from lmjax.types import PyTree


def kind(processors: PyTree) -> Hashable:
  """Return a key that processors must share to be stacked.

  It consists of everything but scalars: structure, static fields, and arrays.

  >>> kind(Temperature(0.5)) == kind(Temperature(0.9))
  True
  >>> kind(TopK(4)) == kind(TopK(5))  # programs are compiled for powers of two
  False
  """
  leaves, structure = jax.tree.flatten(processors)
  arrays = (np.asarray(leaf) for leaf in leaves)
  return structure, tuple(
    (array.dtype.kind, array.shape, array.tobytes() if array.ndim else b"")
    for array in arrays
  )


def stack(processors: Sequence[PyTree], rows: int) -> PyTree:
  """Stack processors of one kind, one per row.

  Args:
    processors: a processor, or a sequence of them, for each of the first rows.
    rows: number of rows; further rows use the first processor.

  >>> stack([Temperature(0.5), Temperature(0.9)], rows=4)
  Temperature(temperature=array([0.5, 0.9, 0.5, 0.5]))
  """
  padded = [*processors, *[processors[0]] * (rows - len(processors))]

  def join(*leaves) -> np.ndarray:
    return leaves[0] if np.ndim(leaves[0]) else np.array(leaves)

  return jax.tree.map(join, *padded)
