# SPDX-License-Identifier: Apache-2.0
"""Telling which class a text is of."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.losses import cross_entropy, distillation
from lmjax.metrics import Sums, weighted_sum
from lmjax.tasks.task import Outcome
from lmjax.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Classification:
  """Score the classes of texts.

  Attributes:
    model: turns tokens and a mask into scores, [B, C].
    labels: the names of the classes.
    weight: share in the loss of what another model says of the texts, where
      batches have its scores, "teacher" [B, C].
    temperature: of both models' softmaxes there; see `distillation`.
  """

  model: nn.Module
  labels: tuple[str, ...]
  weight: float = 0.0
  temperature: float = 1.0

  def init(self, key: Array, batch: Batch) -> PyTree:
    """Make the model's variables from the shapes of a batch."""
    return self.model.init(key, batch["inputs"], batch["mask"])

  def initial_carry(self, batch_size: int) -> None:
    """Remember nothing."""
    del batch_size

  def loss(
    self,
    params: PyTree,
    collections: PyTree,
    carry: PyTree,
    batch: Batch,
    rngs: dict[str, Array],
    train: bool,
  ) -> Outcome:
    """Sum the loss of the texts."""
    scores_BC, changed = self.model.apply(
      {"params": params, **collections},
      batch["inputs"],
      batch["mask"],
      rngs=rngs if train else None,
      mutable=[*collections, "losses"] if train else [],
    )
    changed.pop("losses", None)
    targets_B, weights_B = batch["targets"], batch["weights"]
    loss_B = cross_entropy(scores_BC, targets_B)
    if train and "teacher" in batch:
      soft_B = distillation(scores_BC, batch["teacher"], self.temperature)
      loss_B = (1.0 - self.weight) * loss_B + self.weight * soft_B
    right_B = jnp.argmax(scores_BC, axis=-1) == targets_B
    sums = Sums(
      weighted_sum(loss_B, weights_B),
      weights_B.sum(),
      dict(accuracy=weighted_sum(right_B, weights_B)),
    )
    return Outcome(sums, {**collections, **changed}, carry)

  def predict(self, variables: PyTree, batch: Batch) -> dict[str, Array]:
    """Return the probability of each class, "probabilities" [B, C]."""
    scores_BC = self.scores(variables, batch)
    return dict(probabilities=jax.nn.softmax(scores_BC, axis=-1))

  def scores(self, variables: PyTree, batch: Batch) -> Array:
    """Score the classes, float32 [B, C]."""
    return self.model.apply(variables, batch["inputs"], batch["mask"])

  def report(self, means: dict[str, float]) -> dict[str, float]:
    """Name what users read."""
    return means
