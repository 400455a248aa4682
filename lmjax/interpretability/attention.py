# SPDX-License-Identifier: Apache-2.0
"""The weights of all attention layers, out of what models sow."""

import re
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from lmjax.tree import named_leaves
from lmjax.types import PyTree

_SOWN = re.compile(r"(?P<where>.*?)/?(?P<kind>weights|pooling_weights)/\d+$")


class AttentionMap(NamedTuple):
  """What some tokens look at.

  Attributes:
    rows: who looks, T names.
    columns: at what, S names.
    weights_HTS: how much, by head.
    is_whole: whether these are all tokens of the text, not its first.
  """

  rows: list[str]
  columns: list[str]
  weights_HTS: np.ndarray
  is_whole: bool


def attention_maps(intermediates: PyTree) -> dict[str, np.ndarray]:
  """Name the weights of the first row of a batch.

  >>> {name: x.shape for name, x in attention_maps(sown).items()}
  {"blocks/attention 0": (4, 7, 7), "blocks/attention 1": (4, 7, 7)}

  Args:
    intermediates: the collection that `model.apply(..., mutable=[
      "intermediates"])` returns.

  Returns:
    By name and layer: float32 [H, T, S], what each of T tokens looks at; of
    pooling [1, 1, S].
  """
  maps = {}
  for name, leaf in named_leaves(intermediates).items():
    found = _SOWN.match(name)
    if not found:
      continue
    where, weights = found["where"] or "pooling", np.asarray(leaf, np.float32)
    if found["kind"] == "pooling_weights":
      maps[where] = weights[0][None, None]
    elif weights.ndim == 4:
      maps[where] = weights[0]
    else:  # blocks that share their parameters' arrays: [L, B, H, T, S]
      maps.update({f"{where} {i}": layer[0] for i, layer in enumerate(weights)})
  return maps


def read_maps(
  model: nn.Module,
  variables: PyTree,
  *inputs: np.ndarray,
  **options: np.ndarray,
) -> dict[str, np.ndarray]:
  """Let a model read, and see what it looks at; see `attention_maps`."""

  @jax.jit
  def look(variables: PyTree) -> PyTree:
    _, sown = model.apply(
      variables, *inputs, mutable=["intermediates"], **options
    )
    return sown.get("intermediates", {})

  return attention_maps(look(variables))
