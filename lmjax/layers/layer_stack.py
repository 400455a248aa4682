# SPDX-License-Identifier: Apache-2.0
"""Stacks of L blocks, with parameters stacked [L, ...] or separate."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.types import Array, PyTree

LAYER_EXECUTIONS = ("auto", "scan", "unrolled")
_FEW_LAYERS = 8
_COLLECTIONS = ("params", "batch_stats", "losses", "intermediates")


def choose_layer_execution(layer_execution: str, num_layers: int) -> str:
  """Resolve "auto": unrolling a few layers is faster on a CPU."""
  if layer_execution != "auto":
    return layer_execution
  few = num_layers <= _FEW_LAYERS and jax.default_backend() == "cpu"
  return "unrolled" if few else "scan"


def make_layers(
  make_block: functools.partial,
  num_layers: int,
  layer_execution: str,
  remat: bool,
) -> nn.Module | list[nn.Module]:
  """Create the blocks.

  Args:
    make_block: constructor of a block with the call of transformer_block.Block.
    num_layers: number of blocks L.
    layer_execution: "scan" compiles one block and loops over it; "unrolled"
      compiles every block; both stack parameters. "separate" returns a list
      of blocks with their own parameters, for decoding only.
    remat: whether the backward pass recomputes the activations of each block
      instead of storing them.
  """
  block = make_block.func
  if remat:  # only a scan keeps a block from being merged with its copy
    block = nn.remat(block, prevent_cse=layer_execution != "scan")
  if layer_execution == "separate":
    return [block(**make_block.keywords) for _ in range(num_layers)]
  stack = nn.scan(
    block,
    variable_axes=dict.fromkeys(_COLLECTIONS, 0),
    split_rngs={"params": True, "dropout": True},
    in_axes=(0, nn.broadcast, nn.broadcast),
    length=num_layers,
    unroll=num_layers if layer_execution == "unrolled" else 1,
  )
  return stack(**make_block.keywords)


def apply_layers(
  blocks: nn.Module | list[nn.Module],
  x_BTD: Array,
  layer_inputs: Sequence[PyTree],
  *shared: PyTree,
) -> tuple[Array, list[PyTree]]:
  """Apply all blocks in order.

  Args:
    blocks: the result of `make_layers`.
    x_BTD: input of the first block.
    layer_inputs: one input per block, all of one tree structure.
    *shared: inputs of every block.

  Returns:
    The output of the last block, and the second result of each block.
  """
  if isinstance(blocks, nn.Module):
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layer_inputs)
    x_BTD, stacked = blocks(x_BTD, stacked, *shared)
    return x_BTD, _unstack(stacked, len(layer_inputs))
  results = []
  for block, own in zip(blocks, layer_inputs, strict=True):
    x_BTD, result = block(x_BTD, own, *shared)
    results.append(result)
  return x_BTD, results


def separate(variables: PyTree, num_layers: int) -> PyTree:
  """Unstack the parameters of blocks, [L, ...], into L subtrees.

  Variables of "blocks" become those of "layers_0", "layers_1", ...
  """
  apart = {}
  for name, collection in variables.items():
    apart[name] = collection = dict(collection)
    if "blocks" in collection:
      layers = _unstack(collection.pop("blocks"), num_layers)
      for index, layer in enumerate(layers):
        collection[f"layers_{index}"] = layer
  return apart


def _unstack(tree: PyTree, number: int) -> list[PyTree]:
  return [
    jax.tree.map(lambda leaf, i=index: leaf[i], tree) for index in range(number)
  ]
