# SPDX-License-Identifier: Apache-2.0
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmjax.losses import cross_entropy
from lmjax.metrics.sums import Sums, add_to, perplexity, weighted_sum
from lmjax.tasks.language_modeling import LanguageModeling, report_tokens
from lmjax.train_state import ModelState
from tests.tiny_models import recurrent


def test_cross_entropy_equals_optax_and_holds_large_logits():
  rng = np.random.default_rng(0)
  logits = jnp.array(rng.normal(size=(2, 5, 11)) * 50, jnp.float32)
  targets = jnp.array(rng.integers(0, 11, (2, 5)))
  theirs = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
  np.testing.assert_allclose(cross_entropy(logits, targets), theirs, rtol=1e-5)
  low = cross_entropy(logits.astype(jnp.bfloat16), targets)
  assert low.dtype == jnp.float32 and jnp.isfinite(low).all()


def test_sums_of_parts_equal_the_whole():
  rng = np.random.default_rng(0)
  values, weights = rng.random((2, 6, 4)).astype(np.float32)

  def sums(rows):
    w = jnp.array(weights[rows])
    total = weighted_sum(jnp.array(values[rows]), w)
    return Sums(total, jnp.sum(w), {"x": 2 * total}).with_mean("y", 0.5)

  parts = sums(slice(0, 1)).plus(sums(slice(1, 6))).means()
  whole = sums(slice(0, 6)).means()
  mean = (values * weights).sum() / weights.sum()
  for name, value in dict(loss=mean, x=2 * mean, y=0.5).items():
    np.testing.assert_allclose([parts[name], whole[name]], value, rtol=1e-5)


def test_sums_of_nothing_are_no_number():
  zero = jnp.zeros(())
  assert math.isnan(Sums(zero, zero, {}).means()["loss"])


def test_the_report_names_losses_rightly():
  units = np.array([0, 1, 3], np.float32)  # an <eos>, a letter, three letters
  for unit in ("byte", "character", "word"):
    task = LanguageModeling(None, units, unit, stateful=False)
    means = dict(loss=1.5, nats=math.log(8), units=1.5, accuracy=0.25)
    report = task.report(means)
    np.testing.assert_allclose(report["perplexity"], 8.0)
    assert report["loss"] == 1.5 and report["accuracy"] == 0.25
    bits = {k: v for k, v in report.items() if k.startswith("bits")}
    expected = {} if unit == "word" else {f"bits_per_{unit}": 2.0}
    assert bits.keys() == expected.keys()
    np.testing.assert_allclose(list(bits.values()), list(expected.values()))


def test_a_perplexity_beyond_all_floats_is_infinite():
  for nats, expected in ((700.0, math.exp(700)), (710.0, math.inf)):
    assert report_tokens(dict(nats=nats, units=1.0))["perplexity"] == expected
  assert perplexity(math.inf) == math.inf and math.isnan(perplexity(math.nan))


def test_padding_changes_no_sum():
  model = recurrent("lstm", num_layers=1)
  task = LanguageModeling(model, np.ones(11, np.float32), "byte", False)
  rng = np.random.default_rng(0)
  inputs, targets = rng.integers(0, 11, (2, 2, 5))
  weights = np.ones((2, 5), np.float32)
  params = task.init(jax.random.key(0), {"inputs": inputs})["params"]

  def sums(pad):
    batch = {
      "inputs": np.pad(inputs, ((0, 0), (0, pad)), constant_values=7),
      "targets": np.pad(targets, ((0, 0), (0, pad)), constant_values=7),
      "weights": np.pad(weights, ((0, 0), (0, pad))),
    }
    return task.loss(params, ModelState({}, None), batch, {}, train=False).sums

  for a, b in zip(*map(jax.tree.leaves, (sums(0), sums(4))), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_totals_hold_more_tokens_than_a_float32():
  total = {}
  sums = Sums(jnp.array(1234.5), jnp.array(1000.0), {})
  for _ in range(20_000):
    add_to(total, jax.device_get(sums))
  total["weight"] += 2.0**24  # where float32 cannot count on by ones
  add_to(total, Sums(jnp.array(0.0), jnp.array(1.0), {}))
  assert total["weight"] == 20_000 * 1000 + 2**24 + 1
