# SPDX-License-Identifier: Apache-2.0
"""Losses and metrics of classes, against scikit-learn, Optax and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics
from sklearn.utils.class_weight import compute_class_weight

from lmjax import losses
from lmjax.metrics.sums import Sums, add_to, divide
from lmjax.tasks.classification import (
  CRITERIA,
  MULTI_LABEL_LOSSES,
  NUM_BINS,
  Classification,
)
from lmjax.tasks.task import LossOptions
from lmjax.train_state import ModelState

B, C = 40, 5
NAMES = tuple("abcde")
rng = np.random.default_rng(0)
SCORES = jnp.array(3 * rng.normal(size=(B, C)), jnp.float32)
TARGETS = jnp.array(rng.integers(0, C - 1, B))  # the last class never occurs
MANY = jnp.array(rng.random((B, C)) < 0.3, jnp.float32)


class Given:
  """A model whose scores are its inputs."""

  def apply(
    self, variables, inputs, mask, rngs=None, mutable=None, method=None
  ):
    del variables, mask, rngs, method
    return inputs if mutable is None else (inputs, {})


def task(many=False, counts=(9, 1, 4, 4, 2), **options):
  return Classification(Given(), NAMES, counts, many, **options)


def sums(task, scores=SCORES, targets=TARGETS, weights=None, train=False):
  weights = np.ones(len(scores), np.float32) if weights is None else weights
  batch = dict(inputs=scores, mask=None, targets=targets, weights=weights)
  return task.loss({}, ModelState({}, None), batch, {}, train).sums


def same(ours, theirs):
  np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


def test_cross_entropy_with_smoothing_and_z_loss_equals_optax():
  counted = optax.smooth_labels(jax.nn.one_hot(TARGETS, C), 0.2)
  theirs = optax.softmax_cross_entropy(SCORES, counted)
  theirs += 0.01 * jax.nn.logsumexp(SCORES, axis=-1) ** 2
  same(losses.cross_entropy(SCORES, TARGETS, 0.2, 0.01), theirs)


def test_multiclass_hinge_equals_scikit_learn():
  for row in range(9):
    theirs = sklearn.metrics.hinge_loss(
      TARGETS[row : row + 1], SCORES[row : row + 1], labels=range(C)
    )
    same(losses.multiclass_hinge(SCORES, TARGETS)[row], theirs)


def test_losses_of_margins_equal_optax_and_closed_forms():
  margin = losses.margins(SCORES, MANY)
  sign = 2 * MANY - 1
  theirs = optax.sigmoid_binary_cross_entropy(SCORES, MANY)
  same(losses.binary_cross_entropy(margin), theirs)
  same(losses.hinge(margin), optax.hinge_loss(SCORES, sign))
  focal = optax.sigmoid_focal_loss(SCORES, MANY, gamma=1.5)
  same(losses.binary_focal(margin, 1.5), focal)
  same(losses.exponential(margin), np.exp(-sign * SCORES))
  same(losses.squared_error(margin), (SCORES - sign) ** 2)


def test_focal_loss_of_a_softmax():
  p = jax.nn.softmax(SCORES)[np.arange(B), TARGETS]
  same(
    losses.focal_cross_entropy(SCORES, TARGETS, 2.0),
    -((1 - p) ** 2) * np.log(p),
  )
  same(
    losses.focal_cross_entropy(SCORES, TARGETS, 0.0),
    losses.cross_entropy(SCORES, TARGETS),
  )


@pytest.mark.parametrize("many", [False, True])
def test_gradients_are_finite_where_all_is_known_or_wrong(many):
  extreme = jnp.array([[40.0, -40, -40, -40, 0], [-40, 40, 40, 40, 0]])
  targets = MANY[:2] if many else jnp.array([0, 0])
  for criterion in MULTI_LABEL_LOSSES if many else CRITERIA:
    if criterion == "exponential":
      continue  # whose gradient has no bound
    judge = task(many, criterion=criterion, focal_gamma=0.5)
    slope = jax.grad(lambda s, t=judge: sums(t, s, targets).loss)(extreme)
    assert jnp.isfinite(slope).all(), criterion


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_loss_falls_when_scores_learn_from_it(criterion):
  def learn(judge, targets):
    @jax.jit
    def slope(scores):
      return jax.grad(lambda s: sums(judge, s, targets, train=True).loss)(
        scores
      )

    scores = 0.1 * SCORES
    for _ in range(60):
      scores -= jnp.clip(slope(scores), -0.1, 0.1)
    report = judge.report(sums(judge, scores, targets).means())
    assert report["accuracy"] == 1.0, criterion

  learn(task(criterion=criterion), TARGETS)
  if criterion in MULTI_LABEL_LOSSES:
    learn(task(many=True, criterion=criterion), MANY)


def test_helps_of_learning_judge_nothing():
  plain = sums(task())
  helped = task(loss_options=LossOptions(0.3, 0.1), class_weights="balanced")
  assert sums(helped).loss == plain.loss
  assert sums(helped, train=True).loss != plain.loss


def test_balanced_weights_equal_scikit_learn():
  counts = np.bincount(TARGETS, minlength=C)[: C - 1]
  theirs = compute_class_weight(
    "balanced", classes=np.arange(C - 1), y=np.array(TARGETS)
  )
  judge = Classification(
    Given(), NAMES[:-1], counts, False, class_weights="balanced"
  )
  scores = SCORES[:, :-1]
  expected = losses.cross_entropy(scores, TARGETS) * theirs[TARGETS]
  same(sums(judge, scores, train=True).loss, expected.sum())
  same(theirs[TARGETS].mean(), 1.0)


def expected_error(confidence, right, weights):
  """Compute the calibration error bin by bin."""
  total = 0.0
  for low in range(NUM_BINS):
    inside = (confidence > low / NUM_BINS) & (
      confidence <= (low + 1) / NUM_BINS
    )
    weight = weights[inside].sum()
    if weight:
      mean = (weights * confidence)[inside].sum() / weight
      accuracy = (weights * right)[inside].sum() / weight
      total += weight * abs(mean - accuracy)
  return total / weights.sum()


def test_figures_of_one_label_equal_scikit_learn():
  judge, weights = task(), rng.random(B).astype(np.float32)
  report = judge.report(sums(judge, weights=weights).means())
  counted, chosen = np.array(TARGETS), np.argmax(SCORES, axis=-1)
  options = dict(sample_weight=weights)
  same(
    report["accuracy"],
    sklearn.metrics.accuracy_score(counted, chosen, **options),
  )
  for kind in ("macro", "micro"):
    theirs = sklearn.metrics.f1_score(counted, chosen, average=kind, **options)
    same(report[f"{kind}_f1"], theirs)
  confusion = sklearn.metrics.confusion_matrix(
    counted, chosen, labels=range(C), normalize="true", **options
  )
  ours = [
    [report["confusion"][row].get(column, 0.0) for column in NAMES]
    for row in NAMES
  ]
  same(ours, confusion)
  precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
    counted, chosen, labels=range(C), zero_division=0, **options
  )
  for c, name in enumerate(NAMES):
    found = report["classes"][name]
    same(
      [found["precision"], found["recall"], found["f1"]],
      [precision[c], recall[c], f1[c]],
    )
  probabilities = np.array(jax.nn.softmax(SCORES))
  error = expected_error(probabilities.max(axis=-1), chosen == counted, weights)
  same(report["expected_calibration_error"], error)


def test_figures_of_many_labels_equal_scikit_learn():
  judge = task(many=True, criterion="binary_cross_entropy")
  report = judge.report(sums(judge, targets=MANY).means())
  counted, chosen = np.array(MANY), np.array(SCORES > 0)
  same(report["accuracy"], sklearn.metrics.accuracy_score(counted, chosen))
  for kind in ("macro", "micro"):
    same(
      report[f"{kind}_f1"],
      sklearn.metrics.f1_score(counted, chosen, average=kind),
    )
  p = np.array(jax.nn.sigmoid(SCORES)).ravel()
  right = (chosen == counted).ravel()
  error = expected_error(np.maximum(p, 1 - p), right, np.ones(B * C))
  same(report["expected_calibration_error"], error)


@pytest.mark.parametrize("many", [False, True])
def test_uneven_parts_and_rows_without_weight_change_nothing(many):
  targets = MANY if many else TARGETS
  judge = task(many, criterion="focal")
  whole = judge.report(sums(judge, targets=targets).means())
  total = {}
  for rows, filling in ((slice(0, 33), 0), (slice(33, B), 9)):

    def fill(x, filling=filling):
      return jnp.concatenate(
        [x, jnp.broadcast_to(x[:1], (filling, *x.shape[1:]))]
      )

    weights = np.r_[np.ones(len(SCORES[rows])), np.zeros(filling)]
    part = sums(
      judge,
      fill(SCORES[rows]),
      fill(targets[rows]),
      weights.astype(np.float32),
    )
    add_to(total, part)
  parts = judge.report(divide(total))
  for name in ("loss", "accuracy", "macro_f1", "expected_calibration_error"):
    same(parts[name], whole[name])


def test_totals_of_arrays_are_kept_in_float64():
  total = {}
  sums = Sums(jnp.zeros(()), jnp.ones(()), {"x": jnp.array([2.0**24, 1.0])})
  for _ in range(3):
    add_to(total, sums)
  add_to(total, sums._replace(metrics={"x": jnp.ones(2)}))
  assert total["x"].tolist() == [3 * 2.0**24 + 1, 4.0]
  assert divide(total)["x"].tolist() == [(3 * 2.0**24 + 1) / 4, 1.0]


def test_the_label_is_the_likeliest_and_labels_are_likelier_than_not():
  batch = dict(inputs=SCORES, mask=None)
  for criterion in CRITERIA:
    made = task(criterion=criterion).predict({}, batch)
    np.testing.assert_array_equal(made["label"], np.argmax(SCORES, axis=-1))
    same(made["probabilities"].sum(axis=-1), np.ones(B))
  made = task(many=True, criterion="hinge").predict({}, batch)
  np.testing.assert_array_equal(made["labels"], SCORES > 0)
