# SPDX-License-Identifier: Apache-2.0
"""The contract of a task; training and evaluation know nothing else."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lmjax.metrics.metric import Directions
from lmjax.metrics.sums import Figure, Sums
from lmjax.train_state import ModelState
from lmjax.types import Array, Batch, PyTree


class LossOptions(NamedTuple):
  """Options of a softmax cross-entropy loss; they apply in training only.

  Attributes:
    label_smoothing: weight of the uniform distribution in the targets (Szegedy
      et al. 2016, arXiv:1512.00567).
    z_loss: weight of the squared log-normalizer of the softmax, which keeps
      logits from drifting (Chowdhery et al. 2022, arXiv:2204.02311).
  """

  label_smoothing: float = 0.0
  z_loss: float = 0.0


class Outcome(NamedTuple):
  """The result of a loss function on a batch.

  Attributes:
    sums: loss, weight and metrics, summed over the batch.
    model_state: the model's state after the batch.
  """

  sums: Sums
  model_state: ModelState


class Task(Protocol):
  """What is learned: a batch in, sums out.

  Sums, never means: they add up across microbatches, devices, processes and
  batches, and are divided once.

  Attributes:
    model: the Flax module that learns it.
    directions: metric name → whether higher is better, for every metric of
      `report`.
  """

  model: Any
  directions: Directions

  def init(self, key: Array, batch: Batch) -> PyTree:
    """Return the model's variables: "params" and other collections."""

  def initial_carry(self, batch_size: int) -> PyTree:
    """Return the carry before the first batch; None if stateless."""

  def loss(
    self,
    params: PyTree,
    model_state: ModelState,
    batch: Batch,
    rngs: dict[str, Array],
    train: bool,
  ) -> Outcome:
    """Compute the sums of a batch.

    Args:
      params: the model's parameters.
      model_state: its other variables and its carry.
      batch: arrays by name, rows first.
      rngs: PRNG keys by stream, used only in training.
      train: whether dropout is on and running statistics are updated.
    """

  def report(self, means: dict[str, Figure]) -> dict[str, Any]:
    """Turn sums divided by their weight into the metrics that users read.

    Returns:
      Numbers by name, "loss" among them. Tables of numbers are dicts, which
      training does not log.
    """


def add_auxiliary_losses(sums: Sums, changed: PyTree) -> Sums:
  """Add the losses that a model sowed, removing them from its collections.

  Auxiliary losses are means over a batch; weighting them like its positions
  keeps them comparable with the loss whatever the batch size.

  Args:
    sums: the sums of the task itself.
    changed: the collections that the model changed, "losses" among them.
  """
  auxiliary = sum(map(jnp.sum, jax.tree.leaves(changed.pop("losses", {}))), 0.0)
  return sums._replace(loss=sums.loss + auxiliary * sums.weight)
