# SPDX-License-Identifier: Apache-2.0
"""Telling how two texts go together."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from lmjax.losses import cross_entropy
from lmjax.metrics.metric import Directions
from lmjax.metrics.sums import Sums, weighted_sum
from lmjax.ops.in_batch_negatives import (
  contrastive_loss,
  found,
  negatives,
  same_texts,
  triplet_loss,
)
from lmjax.tasks.record_task import RecordTask
from lmjax.types import Array, Batch, PyTree

MOMENTS = ("x", "y", "xx", "yy", "xy")


@dataclasses.dataclass(frozen=True, eq=False)
class Matching(RecordTask):
  """Score pairs of texts.

  "contrastive" and "triplet" learn from pairs that go together alone: what else
  is in the batch is wrong, but rows that fill it up, and those where one of the
  texts is the same. Their loss depends on who is in the batch. Under jit, all
  rows of a batch see each other whatever the number of devices; under pmap,
  each device's rows see those of the same device, as microbatches do, so there
  are fewer wrong answers and the loss is lower. All other sums are the same
  however the work is divided.

  Attributes:
    model: turns a batch into what is said of each pair; see
      lmjax.models.heads.text_matcher.
    learned_by: "classification": cross-entropy of labels; "regression": the
      squared error of scores scaled to a range of one; "distribution": the KL
      divergence from a score as a distribution over the two nearest integers
      (Tai et al. 2015, arXiv:1503.00075); "contrastive"; "triplet".
    min_score: the lowest score.
    max_score: the highest score.
    temperature: contrastive: what similarities are divided by.
    margin: triplet: by how much what is right is to be more similar.
    negatives: triplet: "hardest" or "all".
  """

  learned_by: str
  min_score: float
  max_score: float
  temperature: float
  margin: float
  negatives: str

  directions: ClassVar[Directions] = {
    "loss": False,
    "accuracy": True,
    "in_batch_accuracy": True,
    "pearson": True,
  }

  def inputs(self, batch: Batch) -> tuple[Batch]:
    """Take all: which fields there are depends on the model."""
    return (batch,)

  @property
  def method(self) -> str:
    """The model's method: pairs are answered, or texts become vectors."""
    return "vectors" if self._within_batch else "__call__"

  def sums(self, answers: PyTree, batch: Batch, train: bool) -> Sums:
    """Return the sums of the loss and of the metrics."""
    del train
    judge = self._judge_vectors if self._within_batch else self._judge_answers
    loss_B, metrics_B = judge(answers, batch)
    weights_B = batch["weights"]
    return Sums(
      weighted_sum(loss_B, weights_B),
      weights_B.sum(),
      {k: weighted_sum(v, weights_B) for k, v in metrics_B.items()},
    )

  @property
  def _within_batch(self) -> bool:
    return self.learned_by in ("contrastive", "triplet")

  def _judge_vectors(
    self, vectors: dict[str, Array], batch: Batch
  ) -> tuple[Array, dict[str, Array]]:
    """Return the loss and the metrics of each row, of vectors [B, D]."""
    scores_BB = jnp.einsum("AD,BD->AB", vectors["first"], vectors["second"])
    same_BB = same_texts(batch["inputs"], batch["mask"])
    same_BB |= same_texts(batch["others"], batch["others_mask"])
    wrong_BB = negatives(same_BB, batch["weights"])
    if self.learned_by == "contrastive":
      loss_B = contrastive_loss(scores_BB / self.temperature, wrong_BB)
    else:
      hardest = self.negatives == "hardest"
      loss_B = triplet_loss(scores_BB, wrong_BB, self.margin, hardest)
    return loss_B, dict(in_batch_accuracy=found(scores_BB, wrong_BB))

  def _judge_answers(
    self, answers: Array, batch: Batch
  ) -> tuple[Array, dict[str, Array]]:
    """Return the same of what the model says of each pair."""
    targets_B = batch["targets"]
    if self.learned_by == "classification":
      loss_B = cross_entropy(answers, targets_B)
      right_B = jnp.argmax(answers, axis=-1) == targets_B
      return loss_B, dict(accuracy=right_B)
    if self.learned_by == "regression":
      share_B = (targets_B - self.min_score) / (self.max_score - self.min_score)
      loss_B = (answers - share_B) ** 2
    else:
      shares_BY = self._spread(targets_B, answers.shape[-1])
      log_shares_BY = jnp.log(jnp.maximum(shares_BY, 1e-30))
      ratio_BY = log_shares_BY - jax.nn.log_softmax(answers, axis=-1)
      loss_B = jnp.sum(shares_BY * ratio_BY, axis=-1)
    # From the middle: float32 sums of squares would lose the variance in the
    # mean.
    middle = (self.min_score + self.max_score) / 2
    x_B, y_B = self._scores(answers) - middle, targets_B - middle
    moments = (x_B, y_B, x_B**2, y_B**2, x_B * y_B)
    return loss_B, dict(zip(MOMENTS, moments, strict=True))

  def _spread(self, scores_B: Array, number: int) -> Array:
    """Divide scores among the whole ones beside them: 3.6 → 0 0 0.4 0.6 0."""
    wholes_Y = self.min_score + jnp.arange(number)
    return jax.nn.relu(1 - jnp.abs(scores_B[:, None] - wholes_Y[None]))

  def _scores(self, answers: Array) -> Array:
    """Turn what the model says into scores in their range, [B]."""
    if self.learned_by == "regression":
      return self.min_score + answers * (self.max_score - self.min_score)
    wholes_Y = self.min_score + jnp.arange(answers.shape[-1])
    return jax.nn.softmax(answers, axis=-1) @ wholes_Y

  def predict(self, variables: PyTree, batch: Batch) -> dict[str, Array]:
    """Say how pairs go together.

    Returns:
      "probabilities" [B, Y] of labels; or "score" [B]; or "similarity" [B] and
      the vectors "first" and "second" [B, D] of the texts that are there, whose
      dot product it is.
    """
    answers = self.apply(variables, batch)
    if self._within_batch:
      if len(answers) < 2:
        return answers
      product_BD = answers["first"] * answers["second"]
      return dict(answers, similarity=jnp.sum(product_BD, axis=-1))
    if self.learned_by == "classification":
      return dict(probabilities=jax.nn.softmax(answers, axis=-1))
    return dict(score=self._scores(answers))

  def report(self, means: dict[str, float]) -> dict[str, float]:
    """Name what users read: Pearson's correlation instead of moments."""
    report = {k: v for k, v in means.items() if k not in MOMENTS}
    if "xy" in means:
      x, y, xx, yy, xy = (means[name] for name in MOMENTS)
      variances = max(xx - x * x, 0.0) * max(yy - y * y, 0.0)
      report["pearson"] = (
        (xy - x * y) / math.sqrt(variances) if variances > 0 else math.nan
      )
    return report
