# SPDX-License-Identifier: Apache-2.0
"""Sharding rules: from the paths of parameters to their sharding."""

import math
import re
from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmjax.errors import UserError
from lmjax.parallel.mesh import PARAMETER_AXES
from lmjax.tree import map_named, named_leaves
from lmjax.types import PyTree

Rule = tuple[str, Sequence[str | None]]


def partition_spec(
  name: str, shape: tuple[int, ...], rules: Sequence[Rule], mesh: Mesh
) -> PartitionSpec:
  """Return the spec of an array: that of the first rule its path matches.

  Specs are aligned with the last dimensions, so that layers stacked by a scan
  need no rules of their own. Arrays without a matching rule are replicated, and
  so are those whose rule is the empty tuple.

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
          f"the sharding rule {pattern!r} names the axis {axis!r}; the axes of "
          f"the mesh are {', '.join(mesh.axis_names)}."
        )
      if axis is not None and size % mesh.shape[axis]:
        raise UserError(
          f"parallel.mesh.{axis}={mesh.shape[axis]} must divide dimension "
          f"{size} of {name}, which the rule {pattern!r} shards over it; "
          "change the size of the model or of the mesh."
        )
    return PartitionSpec(*spec)
  return PartitionSpec()


# Above this fraction of all parameters, an array that no rule matches is more
# likely a forgotten rule than a deliberate replication.
MAX_UNMATCHED = 0.02


def check_rules(params: PyTree, rules: Sequence[Rule], mesh: Mesh) -> None:
  """Check that rules and parameters fit, if the mesh shards parameters at all.

  Args:
    params: arrays or shapes by path.
    rules: the sharding rules.
    mesh: the device mesh.

  Raises:
    UserError: if a rule matches no parameter, or a large parameter matches no
      rule.
  """
  if all(mesh.shape.get(axis, 1) == 1 for axis in PARAMETER_AXES):
    return
  leaves = named_leaves(params)
  names = ", ".join(leaves)
  for pattern, _ in rules:
    if not any(re.search(pattern, name) for name in leaves):
      raise UserError(
        f"the sharding rule {pattern!r} matches no parameter; correct or "
        f"remove it. Parameters: {names}."
      )
  total = sum(math.prod(jax.numpy.shape(leaf)) for leaf in leaves.values())
  for name, leaf in leaves.items():
    size = math.prod(jax.numpy.shape(leaf))
    matched = any(re.search(pattern, name) for pattern, _ in rules)
    if not matched and size > MAX_UNMATCHED * total:
      raise UserError(
        f"no sharding rule matches {name}, which has {size / total:.0%} of the "
        "parameters; add a rule to parallel.rules, such as "
        f"({re.escape(name) + '$'!r}, ()) to replicate it."
      )


def tree_shardings(tree: PyTree, rules: Sequence[Rule], mesh: Mesh) -> PyTree:
  """Return the sharding of every array of a tree.

  The paths of an optimizer's moments end in those of their parameters, so they
  are sharded alike.
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
  """Return a shape with a sharding."""
  return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
