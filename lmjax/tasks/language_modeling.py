# SPDX-License-Identifier: Apache-2.0
"""Next-token prediction."""

import dataclasses
import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from lmjax.metrics.metric import Directions
from lmjax.metrics.sums import Sums, perplexity, weighted_sum
from lmjax.tasks.task import LossOptions, Outcome, add_auxiliary_losses
from lmjax.train_state import ModelState
from lmjax.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModeling:
  """Predict each token from those before it.

  Attributes:
    model: a model with the contract of lmjax.models.
    units_V: number of characters or bytes of each token, float32 [V].
    unit: what `units_V` counts: "character", "byte" or "word"; for words no
      bits per unit are reported.
    stateful: whether the carry continues from batch to batch.
    loss_options: label smoothing and z-loss, in training.
  """

  model: nn.Module
  units_V: np.ndarray
  unit: str
  stateful: bool
  loss_options: LossOptions = LossOptions()

  directions: ClassVar[Directions] = {
    "loss": False,
    "accuracy": True,
    "perplexity": False,
    "bits_per_*": False,
  }

  def init(self, key: Array, batch: Batch) -> PyTree:
    """Return the model's variables, initialized by the shapes of a batch."""
    return self.model.init(key, batch["inputs"])

  def initial_carry(self, batch_size: int) -> PyTree:
    """Return an empty carry; None if the task is stateless."""
    if not self.stateful:
      return None
    return self.model.initial_carry(batch_size, self.model.max_context or 0)

  def loss(
    self,
    params: PyTree,
    model_state: ModelState,
    batch: Batch,
    rngs: dict[str, Array],
    train: bool,
  ) -> Outcome:
    """Sum the cross-entropy of the targets; see Task.

    In training, auxiliary losses, label smoothing and the z-loss are added;
    the metrics never include them.

    Args:
      params: the model's parameters.
      model_state: its other variables and its carry.
      batch: inputs, targets, weights and optionally resets, [B, T] each.
      rngs: PRNG keys by stream, used only in training.
      train: whether dropout is on and running statistics are updated.
    """
    collections, carry = model_state
    variables = {"params": params, **collections}
    (hidden, carry), changed = self.model.apply(
      variables,
      batch,
      carry,
      method=self.read,
      rngs=rngs if train else None,
      mutable=[*collections, "losses"] if train else [],
    )
    # The loss is a method of the model, because the fastest one never stores
    # the logits of the whole batch.
    entropy = self.model.apply(
      variables,
      hidden,
      batch["targets"],
      batch["weights"],
      *(self.loss_options if train else LossOptions()),
      method="cross_entropy",
    )
    units_BT = jnp.asarray(self.units_V)[batch["targets"]]
    metrics = dict(
      nats=entropy.nats,
      accuracy=entropy.correct,
      units=weighted_sum(units_BT, batch["weights"]),
    )
    sums = Sums(entropy.loss, jnp.sum(batch["weights"]), metrics)
    sums = add_auxiliary_losses(sums, changed)
    return Outcome(sums, ModelState({**collections, **changed}, carry))

  @staticmethod
  def read(
    model: nn.Module, batch: Batch, carry: PyTree
  ) -> tuple[PyTree, PyTree]:
    """Apply a model to a batch; return hidden vectors and the new carry."""
    options = {}
    if "bidirectional" in batch:
      options["bidirectional_BT"] = batch["bidirectional"]
    return model(batch["inputs"], carry, batch.get("resets"), **options)

  def report(self, means: dict[str, float]) -> dict[str, float]:
    """Turn means per token into metrics.

    Args:
      means: sums divided by the weight: loss, nats, accuracy and units.

    Returns:
      See `report_tokens`, and "bits_per_character" or "bits_per_byte" where the
      length of tokens is known.
    """
    report = report_tokens(means)
    if self.unit != "word" and means["units"] > 0:
      bits = means["nats"] / means["units"] / math.log(2)
      report[f"bits_per_{self.unit}"] = bits
    return report


def report_tokens(means: dict[str, float]) -> dict[str, float]:
  """Turn means per token into metrics of tokens of any kind.

  >>> report_tokens(dict(loss=0.7, nats=0.6931, units=1.0, accuracy=0.5))
  {"loss": 0.7, "accuracy": 0.5, "perplexity": 2.0}

  Returns:
    "loss"; "perplexity", the exponential of the cross-entropy; and the other
    means unchanged.
  """
  report = dict(means)
  nats, _ = report.pop("nats"), report.pop("units")
  return {**report, "perplexity": perplexity(nats)}
