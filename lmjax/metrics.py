# SPDX-License-Identifier: Apache-2.0
"""Sums that are divided once.

A loss or a metric is a sum over positions together with the weight that it is
to be divided by. Sums of microbatches, devices, hosts and batches add up, so
none of these divisions of the work changes a result.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.types import Array


class Sums(NamedTuple):
  """Sums over the positions of some batches.

  Attributes:
    loss: what the gradient is taken of, in nats.
    weight: sum of the weights, which everything here is divided by.
    metrics: further sums by name.
  """

  loss: Array
  weight: Array
  metrics: dict[str, Array]

  def plus(self, other: "Sums") -> "Sums":
    """Add up, field by field."""
    return jax.tree.map(lambda a, b: a + b, self, other)

  def with_mean(self, name: str, mean: Array) -> "Sums":
    """Add a quantity that is a mean already."""
    return self._replace(metrics={**self.metrics, name: mean * self.weight})

  def means(self) -> dict[str, float]:
    """Divide, on the host."""
    total = {}
    add_to(total, self)
    return divide(total)


def weighted_sum(values_BT: Array, weights_BT: Array) -> Array:
  """Sum values times weights in float32."""
  return jnp.sum(values_BT.astype(jnp.float32) * weights_BT)


def add_to(total: dict[str, float], sums: Sums) -> None:
  """Add sums to a total of plain numbers, which hold any number of tokens.

  Waits for the devices. A float32 on a device would lose what a batch adds to
  it after some ten million tokens.
  """
  loss, weight, metrics = jax.device_get(sums)
  for name, value in {"loss": loss, "weight": weight, **metrics}.items():
    total[name] = total.get(name, 0.0) + float(value)


def perplexity(nats: float) -> float:
  """Return the exponential of nats a token; infinity beyond all floats."""
  return math.inf if nats > 709.0 else math.exp(nats)


def divide(total: dict[str, float]) -> dict[str, float]:
  """Divide a total by its weight; nothing weighed is not a number."""
  weight = total.get("weight", 0.0) or math.nan
  return {k: v / weight for k, v in total.items() if k != "weight"}
