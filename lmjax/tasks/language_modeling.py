# SPDX-License-Identifier: Apache-2.0
"""Next-token prediction."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.metrics.sums import Sums, perplexity, weighted_sum
from lmjax.tasks.task import Outcome
from lmjax.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModeling:
  """Predict each token from those before it.

  Attributes:
    model: keeps the contract of lmjax.models.
    units_V: how many characters or bytes each token stands for, float32 [V].
    unit: what `units_V` counts; "word" reports no bits.
    stateful: whether the model's memory is kept from batch to batch.
    label_smoothing: share of each target that is spread over all tokens.
    z_loss: weight of the squared logarithm of the softmax's normaliser.
  """

  model: nn.Module
  units_V: np.ndarray
  unit: str
  stateful: bool
  label_smoothing: float = 0.0
  z_loss: float = 0.0

  def init(self, key: Array, batch: Batch) -> PyTree:
    """Make the model's variables from the shapes of a batch."""
    return self.model.init(key, batch["inputs"])

  def initial_carry(self, batch_size: int) -> PyTree:
    """Make an empty memory; None if the task is stateless."""
    if not self.stateful:
      return None
    return self.model.initial_carry(batch_size, self.model.max_context or 0)

  def loss(
    self,
    params: PyTree,
    collections: PyTree,
    carry: PyTree,
    batch: Batch,
    rngs: dict[str, Array],
    train: bool,
  ) -> Outcome:
    """Sum the cross-entropy of the targets; in training, with what is added.

    Auxiliary losses, which models sow into the collection "losses", are means
    over a batch; they are weighed like its positions. They, label smoothing and
    the z-loss help to learn and judge nothing.

    Args:
      params: the model's parameters.
      collections: its other variables.
      carry: its memory, or None.
      batch: inputs, targets, weights and perhaps resets, [B, T] each.
      rngs: keys by stream, used in training alone.
      train: whether dropout is on and running statistics move.
    """
    variables = {"params": params, **collections}
    (hidden, carry), changed = self.model.apply(
      variables,
      batch,
      carry,
      method=self.read,
      rngs=rngs if train else None,
      mutable=[*collections, "losses"] if train else [],
    )
    entropy = self.model.apply(
      variables,
      hidden,
      batch["targets"],
      batch["weights"],
      self.label_smoothing if train else 0.0,
      self.z_loss if train else 0.0,
      method="cross_entropy",
    )
    units_BT = jnp.asarray(self.units_V)[batch["targets"]]
    weight = jnp.sum(batch["weights"])
    auxiliary = sum(
      map(jnp.sum, jax.tree.leaves(changed.pop("losses", {}))), 0.0
    )
    metrics = dict(
      nats=entropy.nats,
      accuracy=entropy.correct,
      units=weighted_sum(units_BT, batch["weights"]),
    )
    sums = Sums(entropy.loss + auxiliary * weight, weight, metrics)
    return Outcome(sums, {**collections, **changed}, carry)

  @staticmethod
  def read(
    model: nn.Module, batch: Batch, carry: PyTree
  ) -> tuple[PyTree, PyTree]:
    """Let a model read a batch behind a carry: what it made, and the carry."""
    options = {}
    if "bidirectional" in batch:
      options["bidirectional_BT"] = batch["bidirectional"]
    return model(batch["inputs"], carry, batch.get("resets"), **options)

  def report(self, means: dict[str, float]) -> dict[str, float]:
    """Name what users read.

    Args:
      means: sums divided by the weight: nats, accuracy and units a token.

    Returns:
      What `report_tokens` does, and "bits_per_character" or "bits_per_byte"
      where a token's length is known.
    """
    report = report_tokens(means)
    if self.unit != "word" and means["units"] > 0:
      bits = means["nats"] / means["units"] / math.log(2)
      report[f"bits_per_{self.unit}"] = bits
    return report


def report_tokens(means: dict[str, float]) -> dict[str, float]:
  """Name what is told of tokens of any kind.

  Returns:
    "loss" a token; "perplexity", the exponential of the cross-entropy; then the
    other means, as they are.
  """
  report = dict(means)
  nats, _ = report.pop("nats"), report.pop("units")
  return {**report, "perplexity": perplexity(nats)}
