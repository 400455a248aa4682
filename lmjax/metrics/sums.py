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
import numpy as np

from lmjax.types import Array

Figure = float | np.ndarray  # on the host


class Sums(NamedTuple):
  """Sums over the positions of some batches.

  Attributes:
    loss: what the gradient is taken of, in nats.
    weight: sum of the weights, which everything here is divided by.
    metrics: further sums by name; arrays where there are several of a kind, as
      one a class.
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

  def means(self) -> dict[str, Figure]:
    """Divide, on the host."""
    total = {}
    add_to(total, self)
    return divide(total)


def weighted_sum(values_BT: Array, weights_BT: Array) -> Array:
  """Sum values times weights in float32."""
  return jnp.sum(values_BT.astype(jnp.float32) * weights_BT)


def add_to(total: dict[str, Figure], sums: Sums) -> None:
  """Add sums to a total in float64, which holds any number of tokens.

  Waits for the devices. A float32 on a device would lose what a batch adds to
  it after some ten million tokens.
  """
  loss, weight, metrics = jax.device_get(sums)
  for name, value in {"loss": loss, "weight": weight, **metrics}.items():
    total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)


def f1_scores(correct: Figure, predicted: Figure, labels: Figure) -> Figure:
  """Return the harmonic mean of precision and recall; 0 where all are 0.

  Args:
    correct: how many were rightly taken for something, of one class or of each.
    predicted: how many were taken for it.
    labels: how many are it.
  """
  return 2.0 * correct / np.maximum(predicted + labels, 1e-30)


def perplexity(nats: float) -> float:
  """Return the exponential of nats a token; infinity beyond all floats."""
  return math.inf if nats > 709.0 else math.exp(nats)


def divide(total: dict[str, Figure]) -> dict[str, Figure]:
  """Divide a total by its weight; nothing weighed is not a number."""
  weight = total.get("weight", 0.0) or math.nan
  return {k: v / weight for k, v in total.items() if k != "weight"}
