# SPDX-License-Identifier: Apache-2.0
"""Sums that are divided once.

A loss or a metric is a sum over positions together with the weight that it is
to be divided by. Sums of microbatches, devices, hosts and batches add up, so
none of these divisions of the work changes a result.
"""

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
    """Divide, on the host; "loss" first."""
    loss, weight, metrics = jax.device_get(self)
    weight = float(weight) or float("nan")
    sums = {"loss": loss, **metrics}
    return {name: float(value) / weight for name, value in sums.items()}


def weighted_sum(values_BT: Array, weights_BT: Array) -> Array:
  """Sum values times weights in float32."""
  return jnp.sum(values_BT.astype(jnp.float32) * weights_BT)
