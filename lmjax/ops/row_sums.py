# SPDX-License-Identifier: Apache-2.0
"""Sums over the rows of a batch that a mesh has spread over devices."""

import math
from collections.abc import Callable

import jax
from jax.sharding import AxisType, PartitionSpec

from lmjax.types import PyTree


def sum_rows(
  function: Callable[[PyTree, PyTree], PyTree], rows: PyTree, whole: PyTree
) -> PyTree:
  """Return `function(rows, whole)`, a tree of sums over rows.

  Under a mesh (`jax.sharding.use_abstract_mesh`), whose automatic axes cut the
  batch, every device runs the function on its own rows, and its sums and the
  gradients of `whole` cross the devices once. Left to the compiler, what a
  loop within the function adds up would cross them at every round.

  Args:
    function: what sums, over the first dimension of the arrays of `rows`.
    rows: arrays [B, ...].
    whole: arrays that every row needs.
  """
  mesh = jax.sharding.get_abstract_mesh()
  axes = tuple(
    name
    for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
    if kind == AxisType.Auto
  )
  if math.prod(mesh.shape[axis] for axis in axes) == 1:
    return function(rows, whole)

  def own_rows(rows: PyTree, whole: PyTree) -> PyTree:
    return jax.lax.psum(function(rows, whole), axes)

  return jax.shard_map(
    own_rows,
    mesh=mesh,
    in_specs=(PartitionSpec(axes), PartitionSpec()),
    out_specs=PartitionSpec(),
    check_vma=False,
  )(rows, whole)
