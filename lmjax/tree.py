# SPDX-License-Identifier: Apache-2.0
"""Leaves of pytrees by name: "params/blocks/attention/query/kernel"."""

from collections.abc import Callable
from typing import Any

import jax

from lmjax.types import PyTree


def path_name(path: tuple) -> str:
  """Join the keys of a pytree path with slashes."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: PyTree) -> dict[str, Any]:
  """List the leaves of a tree by name.

  >>> named_leaves({"a": {"b": 1}, "c": [2]})
  {"a/b": 1, "c/0": 2}
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {path_name(path): leaf for path, leaf in leaves}


def map_named(function: Callable[[str, Any], Any], tree: PyTree) -> PyTree:
  """Replace each leaf by `function(name, leaf)`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: function(path_name(path), leaf), tree
  )
