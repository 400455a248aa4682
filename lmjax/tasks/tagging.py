# SPDX-License-Identifier: Apache-2.0
"""Telling what each token of a text is."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lmjax.losses import cross_entropy
from lmjax.metrics.metric import Directions
from lmjax.metrics.sums import Sums, weighted_sum
from lmjax.ops import crf
from lmjax.ops.spans import Tables, count_spans
from lmjax.tasks.record_task import RecordTask
from lmjax.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Tagging(RecordTask):
  """Score the tags of tokens.

  The loss is in nats a token, also of a CRF, whose loss is one a text: learning
  rates then do for both, and parts of a batch add up.

  Attributes:
    model: turns tokens, a mask, characters and bigrams into scores [B, T, C],
      and the transitions of a CRF or None.
    tables: the spans that tags encode; None if tags are not spans.
    unit: name of a span in metrics.
    constrained: whether predicted tags must be valid in their scheme. Training
      has no constraint, since a truncated text may end within a span.
  """

  tables: Tables | None
  unit: str
  constrained: bool

  directions: ClassVar[Directions] = {
    "loss": False,
    "accuracy": True,
    "entity_*": True,
    "word_*": True,
  }

  def inputs(self, batch: Batch) -> tuple[Array | None, ...]:
    """Take what the model sees of tokens, and their mask."""
    beside = (batch.get(field) for field in ("characters", "bigrams"))
    return batch["inputs"], batch["mask"], *beside

  def sums(
    self, answers: tuple[Array, Array | None], batch: Batch, train: bool
  ) -> Sums:
    """Return the sums of the loss and of the metrics."""
    scores_BTY, transitions_YY = answers
    targets_BT, weights_BT = batch["targets"], batch["weights"]
    if transitions_YY is None:
      loss = weighted_sum(cross_entropy(scores_BTY, targets_BT), weights_BT)
    else:
      mask_BT = batch["mask"]
      loss_B = crf.log_partition(scores_BTY, mask_BT, transitions_YY)
      loss_B -= crf.path_score(scores_BTY, targets_BT, mask_BT, transitions_YY)
      loss = weighted_sum(loss_B, weights_BT[:, 0])
    metrics = {}
    if not train or transitions_YY is None:  # the best path takes its time
      tags_BT, _ = self._decode(scores_BTY, batch["mask"], transitions_YY)
      metrics = self._metrics(tags_BT, targets_BT, weights_BT)
    return Sums(loss, weights_BT.sum(), metrics)

  def _metrics(
    self, tags_BT: Array, targets_BT: Array, weights_BT: Array
  ) -> dict[str, Array]:
    correct = dict(accuracy=weighted_sum(tags_BT == targets_BT, weights_BT))
    if self.tables is None:
      return correct
    return correct | count_spans(
      tags_BT, targets_BT, weights_BT > 0, self.tables
    )

  def _decode(
    self, scores_BTY: Array, mask_BT: Array, transitions_YY: Array | None
  ) -> tuple[Array, Array | None]:
    """Choose tags; also return the transitions by which it was done."""
    if self.tables is not None and self.constrained:
      if transitions_YY is None:
        transitions_YY = jnp.zeros(self.tables.allowed.shape)
      transitions_YY = crf.constrained(transitions_YY, self.tables.allowed)
    if transitions_YY is None:
      return jnp.argmax(scores_BTY, axis=-1), None
    return crf.viterbi(scores_BTY, mask_BT, transitions_YY), transitions_YY

  def predict(self, variables: PyTree, batch: Batch) -> dict[str, Array]:
    """Return the tags of each text, and how likely each is by itself.

    Returns:
      "tags" int32 [B, T], the best path; "probabilities" float32 [B, T], given
      the whole text, and that the path is one that the scheme writes if that is
      asked for.
    """
    scores_BTY, transitions_YY = self.apply(variables, batch)
    mask_BT = batch["mask"]
    tags_BT, transitions_YY = self._decode(scores_BTY, mask_BT, transitions_YY)
    if transitions_YY is None:
      probabilities_BTY = jax.nn.softmax(scores_BTY, axis=-1)
    else:
      probabilities_BTY = crf.marginals(scores_BTY, mask_BT, transitions_YY)
    chosen_BT1 = jnp.take_along_axis(
      probabilities_BTY, tags_BT[..., None], axis=-1
    )
    return dict(tags=tags_BT, probabilities=chosen_BT1[..., 0])

  def report(self, means: dict[str, float]) -> dict[str, float]:
    """Name what users read: of spans, precision, recall and their mean, F1."""
    means = dict(means)
    if "correct" not in means:
      return means
    correct, predicted, wanted = (
      means.pop(name) for name in ("correct", "predicted", "labels")
    )
    figures = dict(
      precision=correct / predicted if predicted else 0.0,
      recall=correct / wanted if wanted else 0.0,
      f1=2 * correct / (predicted + wanted) if predicted + wanted else 0.0,
    )
    return means | {f"{self.unit}_{k}": v for k, v in figures.items()}
