# SPDX-License-Identifier: Apache-2.0
"""Functions of the rows of a batch that a mesh has spread over devices."""

import math
from collections.abc import Callable

import jax
from jax.sharding import AxisType, PartitionSpec

from lmjax.types import Array, PyTree


def mean_over_rows(own: Array) -> Array:
  """Average over all devices what is a mean over each one's own rows.

  Where one program sees all rows of the batch, it is that already.
  """
  mesh = jax.sharding.get_abstract_mesh()
  axes = tuple(
    name
    for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
    if kind == AxisType.Manual
  )
  return jax.lax.pmean(own, axes) if axes else own


def on_own_rows(
  function: Callable[[PyTree, PyTree], PyTree],
  rows: PyTree,
  whole: PyTree,
  *,
  add_up: bool = False,
) -> PyTree:
  """Return `function(rows, whole)`, computed by each device on its own rows.

  A strategy says by `jax.sharding.use_abstract_mesh` that the automatic axes of
  a mesh cut the batch. The gradients of `whole` then cross the devices once,
  behind the function. Left to the compiler, what a loop within the function
  adds up would cross them at every round, and an array whose rows are not its
  first axis would be gathered on every device. Without a mesh nothing happens.

  Args:
    function: what treats each row by itself, and at most adds up over them.
    rows: arrays [B, ...].
    whole: arrays that every row needs.
    add_up: whether the results are sums over rows; else they are [B, ...].
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
    result = function(rows, whole)
    return jax.lax.psum(result, axes) if add_up else result

  spread = PartitionSpec(axes)
  return jax.shard_map(
    own_rows,
    mesh=mesh,
    in_specs=(spread, PartitionSpec()),
    out_specs=PartitionSpec() if add_up else spread,
    check_vma=False,
  )(rows, whole)
