# SPDX-License-Identifier: Apache-2.0
"""Which axes of a device mesh divide which axes of arrays.

Ops and layers say what the axes of an array are, by the letters of
lmjax.types; this table says over which axes of the mesh they are divided. A new
mesh axis is one entry here and its size in `parallel.mesh`.
"""

import math
from collections.abc import Callable

import jax
from jax.sharding import AxisType, PartitionSpec

from lmjax.types import Array, PyTree

PMAP_AXIS = "devices"
# Letter → mesh axes that divide it. The rows of a batch are divided by every
# axis along which devices hold different rows: fully sharded data parallelism
# divides the batch like plain data parallelism does.
MESH_AXES = {"B": ("data", "fsdp", PMAP_AXIS)}


def axes_of(letter: str, kind: AxisType) -> tuple[str, ...]:
  """Return the axes of the current mesh that divide a letter.

  Args:
    letter: a letter of lmjax.types.
    kind: Auto for axes that the compiler divides, Manual for those of the
      shard_map or pmap that the caller runs in.
  """
  mesh = jax.sharding.get_abstract_mesh()
  kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
  return tuple(a for a in MESH_AXES[letter] if kinds.get(a) == kind)


def mean_over_rows(own: Array) -> Array:
  """Average a mean over each device's own rows over the devices.

  Where one program sees all rows of the batch, the mean is returned as it is.
  """
  axes = axes_of("B", AxisType.Manual)
  return jax.lax.pmean(own, axes) if axes else own


def on_own_rows(
  function: Callable[[PyTree, PyTree], PyTree],
  rows: PyTree,
  whole: PyTree,
  *,
  add_up: bool = False,
) -> PyTree:
  """Return `function(rows, whole)`, computed by each device on its own rows.

  The gradients of `whole` then cross the devices once, after the function. Left
  to the compiler, what a loop within the function sums would cross them in
  every iteration, and an array whose rows are not its first axis would be
  gathered on every device. Without a mesh the function is simply called.

  Args:
    function: treats each row separately, and at most sums over them.
    rows: arrays [B, ...].
    whole: arrays that every row needs.
    add_up: whether the results are sums over rows; else they are [B, ...].
  """
  mesh = jax.sharding.get_abstract_mesh()
  axes = axes_of("B", AxisType.Auto)
  if math.prod(mesh.shape[axis] for axis in axes) == 1:
    return function(rows, whole)

  def own_rows(rows: PyTree, whole: PyTree) -> PyTree:
    result = function(rows, whole)
    return jax.lax.psum(result, axes) if add_up else result

  divided = PartitionSpec(axes)
  return jax.shard_map(
    own_rows,
    mesh=mesh,
    in_specs=(divided, PartitionSpec()),
    out_specs=PartitionSpec() if add_up else divided,
    check_vma=False,
  )(rows, whole)
