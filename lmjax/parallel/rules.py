# SPDX-License-Identifier: Apache-2.0
"""From paths of parameters to how they are spread over a mesh."""

import re
from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmjax.errors import UserError
from lmjax.tree import map_named
from lmjax.types import PyTree

Rule = tuple[str, Sequence[str | None]]


def partition_spec(
  name: str, shape: tuple[int, ...], rules: Sequence[Rule], mesh: Mesh
) -> PartitionSpec:
  """Find the spec of one array: that of the first rule that its path matches.

  Specs are aligned with the last dimensions, so that layers stacked by a scan
  need no rules of their own; what no rule matches is on every device whole.

  >>> partition_spec("blocks/up/kernel", (6, 128, 512),
  ...                [("kernel$", ("fsdp", None))], mesh)
  PartitionSpec(None, "fsdp", None)

  Raises:
    UserError: if a dimension is not divisible by its mesh axis.
  """
  for pattern, spec in rules:
    if not re.search(pattern, name) or len(spec) > len(shape):
      continue
    spec = (None,) * (len(shape) - len(spec)) + tuple(spec)
    for size, axis in zip(shape, spec, strict=True):
      if axis is not None and axis not in mesh.shape:
        raise UserError(
          f"parallel.rules names axis {axis!r}; the mesh has "
          f"{', '.join(mesh.axis_names)}."
        )
      if axis is not None and size % mesh.shape[axis]:
        raise UserError(
          f"parallel.{axis}={mesh.shape[axis]} must divide dimension {size} "
          f"of {name}, which the rule {pattern!r} spreads over it."
        )
    return PartitionSpec(*spec)
  return PartitionSpec()


def tree_shardings(tree: PyTree, rules: Sequence[Rule], mesh: Mesh) -> PyTree:
  """Give every array of a tree its sharding.

  The moments of an optimizer end in the paths of their parameters, so they are
  spread alike.
  """
  return map_named(
    lambda name, leaf: NamedSharding(
      mesh, partition_spec(name, jax.numpy.shape(leaf), rules, mesh)
    ),
    tree,
  )


def with_sharding(
  shape: jax.ShapeDtypeStruct, sharding: NamedSharding
) -> jax.ShapeDtypeStruct:
  """Say where an array of this shape is to live."""
  return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
