# SPDX-License-Identifier: Apache-2.0
"""Telling which class a text is of, or which classes."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lmjax import losses
from lmjax.metrics.metric import Directions
from lmjax.metrics.sums import Figure, Sums, f1_scores, weighted_sum
from lmjax.tasks.record_task import RecordTask
from lmjax.tasks.task import LossOptions
from lmjax.types import Array, Batch, PyTree

# Name → loss of a text and each class, one against the rest, by its margin.
ONE_VS_REST_LOSSES = {
  "binary_cross_entropy": losses.binary_cross_entropy,
  "mean_squared_error": losses.squared_error,
  "hinge": losses.hinge,
  "exponential": losses.exponential,
}
CRITERIA = ("cross_entropy", "multiclass_hinge", "focal", *ONE_VS_REST_LOSSES)
MULTI_LABEL_LOSSES = ("focal", *ONE_VS_REST_LOSSES)
CLASS_WEIGHTS = ("none", "balanced")
NUM_BINS = 15  # of confidence (Guo et al. 2017, arXiv:1706.04599)


@dataclasses.dataclass(frozen=True, eq=False)
class Classification(RecordTask):
  """Score the classes of texts.

  Attributes:
    model: turns tokens and a mask into scores, [B, Y].
    labels: the names of the classes.
    label_counts: how many training texts are of each.
    many: whether a text may be of any number of classes.
    criterion: the loss, one of CRITERIA. What is of each class is averaged over
      the classes.
    focal_gamma: how much the focal loss turns from what is known.
    class_weights: "balanced" weighs texts by how rare their class is, 1 on
      average; "none" weighs all alike.
    loss_options: label smoothing and z-loss of the cross-entropy, in training.
    distill_weight: weight of the distillation loss, where batches have the
      logits of a teacher, "teacher" [B, Y].
    temperature: of both models' softmaxes there; see `distillation`.
  """

  labels: tuple[str, ...]
  label_counts: tuple[int, ...]
  many: bool
  criterion: str = "cross_entropy"
  focal_gamma: float = 2.0
  class_weights: str = "none"
  loss_options: LossOptions = LossOptions()
  distill_weight: float = 0.0
  temperature: float = 1.0

  directions: ClassVar[Directions] = {
    "loss": False,
    "accuracy": True,
    "macro_f1": True,
    "micro_f1": True,
    "f1.*": True,
    "expected_calibration_error": False,
  }

  def inputs(self, batch: Batch) -> tuple[Array, Array]:
    """Take the tokens and their mask."""
    return batch["inputs"], batch["mask"]

  def sums(self, scores_BY: Array, batch: Batch, train: bool) -> Sums:
    """Return the sums of the loss and of the metrics.

    Class weights, label smoothing and z-loss are only part of the training
    loss.
    """
    weights_B = batch["weights"]
    loss = weighted_sum(self._losses(scores_BY, batch, train), weights_B)
    return Sums(loss, weights_B.sum(), self._metric_sums(scores_BY, batch))

  def predict(self, variables: PyTree, batch: Batch) -> dict[str, Array]:
    """Score texts.

    Returns:
      "probabilities", [B, Y], and what follows from them: "label", int [B], or
      of many labels "labels", bool [B, Y].
    """
    probabilities_BY = self._probabilities(self.scores(variables, batch))
    predicted = self._choose(probabilities_BY)
    name = "labels" if self.many else "label"
    return {"probabilities": probabilities_BY, name: predicted}

  def scores(self, variables: PyTree, batch: Batch) -> Array:
    """Score the classes, float32 [B, Y]."""
    return self.apply(variables, batch)

  def report(self, means: dict[str, Figure]) -> dict[str, Any]:
    """Name what users read.

    Returns:
      "loss"; "accuracy", the fraction of texts with correct labels; "macro_f1",
      the mean F1 of the classes that occur, and "micro_f1", that of all
      decisions; "expected_calibration_error", the mean distance between
      confidence and accuracy (Guo et al. 2017, arXiv:1706.04599). "classes" has
      the "precision", "recall" and "f1" of each class, and the "share" of texts
      with it; "confusion", for single labels, has for each class the fractions
      of its texts by predicted class.
    """
    report = dict(loss=means["loss"], accuracy=means["accuracy"])
    if self.many:
      correct_Y, predicted_Y, labels_Y = means["decisions"]
    else:
      confusion_YY = means["confusion"]
      correct_Y = np.diag(confusion_YY)
      labels_Y, predicted_Y = confusion_YY.sum(axis=1), confusion_YY.sum(axis=0)
    f1_Y = f1_scores(correct_Y, predicted_Y, labels_Y)
    occurs_Y = predicted_Y + labels_Y > 0
    report["macro_f1"] = float(np.mean(f1_Y, where=occurs_Y))
    report["micro_f1"] = float(
      f1_scores(correct_Y.sum(), predicted_Y.sum(), labels_Y.sum())
    )
    gaps = means["calibration_gaps"]
    report["expected_calibration_error"] = float(np.abs(gaps).sum())
    report |= {
      f"f1.{n}": float(f) for n, f in zip(self.labels, f1_Y, strict=True)
    }
    report["classes"] = {
      name: dict(
        precision=share(correct_Y[c], predicted_Y[c]),
        recall=share(correct_Y[c], labels_Y[c]),
        f1=float(f1_Y[c]),
        share=float(labels_Y[c]),
      )
      for c, name in enumerate(self.labels)
    }
    if not self.many:
      report["confusion"] = {
        name: {
          self.labels[c]: share(confusion_YY[row, c], labels_Y[row])
          for c in np.flatnonzero(confusion_YY[row])
        }
        for row, name in enumerate(self.labels)
      }
    return report

  def _losses(self, scores_BY: Array, batch: Batch, train: bool) -> Array:
    """Return the loss of each text, float32 [B]."""
    targets = batch["targets"]
    if self.criterion in ONE_VS_REST_LOSSES:
      margin_BY = losses.margins(scores_BY, self._has(targets))
      loss_B = ONE_VS_REST_LOSSES[self.criterion](margin_BY).mean(axis=-1)
    elif self.criterion == "focal" and self.many:
      margin_BY = losses.margins(scores_BY, targets)
      loss_B = losses.binary_focal(margin_BY, self.focal_gamma).mean(axis=-1)
    elif self.criterion == "focal":
      loss_B = losses.focal_cross_entropy(scores_BY, targets, self.focal_gamma)
    elif self.criterion == "multiclass_hinge":
      loss_B = losses.multiclass_hinge(scores_BY, targets)
    else:
      helps = self.loss_options if train else LossOptions()
      loss_B = losses.cross_entropy(scores_BY, targets, *helps)
    if train and self.class_weights == "balanced":
      counts_Y = np.maximum(self.label_counts, 1)
      balanced_Y = counts_Y.sum() / (len(counts_Y) * counts_Y)
      loss_B *= jnp.asarray(balanced_Y, jnp.float32)[targets]
    if train and "teacher" in batch:
      soft_B = losses.distillation(
        scores_BY, batch["teacher"], self.temperature
      )
      loss_B = (
        1.0 - self.distill_weight
      ) * loss_B + self.distill_weight * soft_B
    return loss_B

  def _metric_sums(self, scores_BY: Array, batch: Batch) -> dict[str, Array]:
    """Return the sums of the metrics."""
    weights_B = batch["weights"]
    labels_BY = self._has(batch["targets"])
    probabilities_BY = self._probabilities(scores_BY)
    predicted = self._choose(probabilities_BY)
    predicted_BY = self._has(predicted)
    same_BY = predicted_BY == labels_BY
    right_B = same_BY.all(axis=-1)
    metrics = dict(accuracy=weighted_sum(right_B, weights_B))
    if self.many:
      counted = jnp.stack([predicted_BY * labels_BY, predicted_BY, labels_BY])
      metrics["decisions"] = jnp.einsum("B,NBY->NY", weights_B, counted)
      confidence_BO = jnp.maximum(probabilities_BY, 1.0 - probabilities_BY)
      right_BO = same_BY
    else:
      weighed_BY = weights_B[:, None] * labels_BY
      metrics["confusion"] = weighed_BY.T @ predicted_BY
      confidence_BO = probabilities_BY.max(axis=-1, keepdims=True)
      right_BO = right_B[:, None]
    metrics["calibration_gaps"] = calibration_gaps(
      confidence_BO, right_BO, weights_B
    )
    return metrics

  def _has(self, labels: Array) -> Array:
    """Say which classes texts are of, 1 or 0, float32 [B, Y]."""
    if self.many:
      return labels.astype(jnp.float32)
    return jax.nn.one_hot(labels, len(self.labels))

  def _probabilities(self, scores_BY: Array) -> Array:
    """Turn scores into probabilities, [B, Y]; of one label, they add up to 1.

    Hinges and squares make no probabilities; theirs have the order of the
    scores.
    """
    if self.many:
      return jax.nn.sigmoid(scores_BY)
    if self.criterion in ONE_VS_REST_LOSSES:
      scores_BY = jax.nn.log_sigmoid(scores_BY)
    return jax.nn.softmax(scores_BY, axis=-1)

  def _choose(self, probabilities_BY: Array) -> Array:
    """Choose the likeliest label, [B], or all that are more likely than not."""
    if self.many:
      return probabilities_BY > 0.5
    return jnp.argmax(probabilities_BY, axis=-1)


def calibration_gaps(
  confidence_BO: Array, right_BO: Array, weights_B: Array
) -> Array:
  """Sum confidence minus what came true, by how high confidence is.

  Args:
    confidence_BO: probabilities of decisions, K a text.
    right_BO: which of them were right.
    weights_B: weights of the texts.

  Returns:
    [NUM_BINS], a K-th of the sum over decisions with a confidence in
    (i, i + 1] / NUM_BINS.
  """
  bin_BO = jnp.ceil(confidence_BO * NUM_BINS).astype(jnp.int32) - 1
  is_in_BON = jax.nn.one_hot(jnp.clip(bin_BO, 0, NUM_BINS - 1), NUM_BINS)
  gap_BO = (confidence_BO - right_BO) / confidence_BO.shape[1]
  return jnp.einsum("B,BO,BON->N", weights_B, gap_BO, is_in_BON)


def share(part: float, whole: float) -> float:
  """Divide; nothing of nothing is 0."""
  return float(part / whole) if whole else 0.0
