# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import numpy as np
import pytest

from lmjax.tasks.language_modeling import LanguageModeling
from lmjax.tasks.masked_lm import MaskedLM
from lmjax.train_state import ModelState
from tests.tiny_models import VOCAB_SIZE, encoder, transformer

UNITS = np.ones(VOCAB_SIZE, np.float32)
WEIGHTS = np.array([[0, 1, 0, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0]], np.float32)


@functools.partial(jax.jit, static_argnums=0)
def scores(model, variables, batch):
  hidden, _ = model.apply(variables, batch["inputs"])
  return model.apply(variables, hidden, method="logits")


@pytest.fixture(scope="module")
def masked():
  """The task, variables, a batch, and its sums as a function of a batch."""
  task = MaskedLM(encoder(num_layers=1), UNITS, "byte", stateful=False)
  inputs, targets = np.random.default_rng(0).integers(0, VOCAB_SIZE, (2, 2, 7))
  batch = dict(inputs=inputs, targets=targets, weights=WEIGHTS)
  params = jax.jit(task.init)(jax.random.key(1), batch)["params"]

  @jax.jit
  def sums(batch):
    return task.loss(params, ModelState({}, None), batch, {}, train=False).sums

  return task, params, batch, sums


def test_chosen_tokens_alone_count(masked):
  _, _, batch, sums = masked
  first = sums(batch)
  assert first.weight == 3
  other = (batch["targets"] + 1) % VOCAB_SIZE
  for chosen, same in ((WEIGHTS == 0, True), (WEIGHTS > 0, False)):
    targets = np.where(chosen, other, batch["targets"])
    changed = sums(batch | {"targets": targets})
    assert (changed.loss == first.loss) == same


def test_the_loss_is_of_the_place_itself_with_both_sides_seen(masked):
  task, params, batch, sums = masked
  nats = -jax.nn.log_softmax(scores(task.model, {"params": params}, batch))
  places = np.nonzero(WEIGHTS)
  expected = nats[*places, batch["targets"][places]].sum()
  np.testing.assert_allclose(sums(batch).loss, expected, rtol=1e-5)
  for place in (0, 2, 6):  # of row 1, whose only target is at 3
    inputs = batch["inputs"].copy()
    inputs[1, place] = (inputs[1, place] + 1) % VOCAB_SIZE
    assert sums(batch | {"inputs": inputs}).loss != sums(batch).loss


def test_what_is_behind_the_end_changes_nothing(masked):
  _, _, batch, sums = masked
  mask = np.arange(7) < np.array([[7], [5]])
  first = sums(batch | {"mask": mask})
  inputs = np.where(mask, batch["inputs"], (batch["inputs"] + 1) % VOCAB_SIZE)
  assert sums(batch | {"mask": mask, "inputs": inputs}).loss == first.loss
  assert sums(batch | {"inputs": inputs}).loss != sums(batch).loss


def test_the_report_has_no_bits(masked):
  means = dict(loss=1.5, nats=0.0, units=2.0, accuracy=0.25)
  report = masked[0].report(means)
  assert report == dict(loss=1.5, accuracy=0.25, perplexity=1.0)


def test_a_prefix_is_read_in_both_directions_and_the_rest_is_not(masked):
  del masked
  model = transformer(num_layers=1)
  task = LanguageModeling(model, UNITS, "byte", stateful=False)
  inputs = np.random.default_rng(0).integers(0, VOCAB_SIZE, (1, 7))
  bidirectional = np.arange(7)[None] < 4
  batch = dict(inputs=inputs, targets=inputs, bidirectional=bidirectional)
  params = jax.jit(task.init)(jax.random.key(1), batch)["params"]

  @jax.jit
  def loss_at(place, inputs):
    weights = (np.arange(7) == place).astype(np.float32)[None]
    new = batch | {"inputs": inputs, "weights": weights}
    return task.loss(
      params, ModelState({}, None), new, {}, train=False
    ).sums.loss

  def sees(place, other):
    changed = inputs.copy()
    changed[0, other] = (changed[0, other] + 1) % VOCAB_SIZE
    return loss_at(place, changed) != loss_at(place, inputs)

  assert sees(0, 3) and not sees(0, 4)
  assert sees(4, 0) and not sees(4, 5)
