# SPDX-License-Identifier: Apache-2.0
"""The device mesh of a config."""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import AxisType, Mesh

from lmjax.errors import UserError

# Axes along which parameters are sharded. The others hold a copy of them.
PARAMETER_AXES = ("fsdp",)


def mesh_sizes(sizes: Mapping[str, int], num_devices: int) -> dict[str, int]:
  """Return the sizes of the mesh axes, with a −1 replaced by what is left.

  >>> mesh_sizes({"data": -1, "fsdp": 2}, 8)
  {"data": 4, "fsdp": 2}

  Args:
    sizes: the section `parallel.mesh`.
    num_devices: number of devices to fill.

  Raises:
    UserError: if the sizes do not multiply to the number of devices.
  """
  sizes = dict(sizes)
  free = [axis for axis, size in sizes.items() if size == -1]
  fixed = math.prod(size for size in sizes.values() if size != -1)
  listed = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
  if len(free) > 1 or 0 in sizes.values():
    raise UserError(
      f"parallel.mesh with {listed} is invalid: sizes are at least 1, and one "
      "of them may be -1."
    )
  if num_devices % fixed or (not free and fixed != num_devices):
    raise UserError(
      f"parallel.mesh with {listed} does not fit {num_devices} devices: the "
      "sizes must multiply to the number of devices; set "
      f"parallel.mesh.{free[0] if free else next(iter(sizes))} or "
      "parallel.num_devices."
    )
  return sizes | dict.fromkeys(free, num_devices // fixed)


def make_mesh(devices: Sequence[jax.Device], sizes: Mapping[str, int]) -> Mesh:
  """Return a mesh of devices; the first axis varies slowest."""
  return jax.make_mesh(
    tuple(sizes.values()),
    tuple(sizes),
    devices=devices,
    # Flax Linen gathers from embedding tables without the output shardings
    # that Explicit axes require.
    axis_types=(AxisType.Auto,) * len(sizes),
  )
