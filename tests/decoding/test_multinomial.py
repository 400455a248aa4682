# SPDX-License-Identifier: Apache-2.0
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.decoding.multinomial import multinomial, sample
from tests.helpers.frequencies import assert_frequencies


@pytest.mark.parametrize("vocab_size", [5, 256, 700])
def test_frequencies_are_those_of_the_softmax(vocab_size):
  """Pearson's chi-square stays within five standard deviations."""
  rng = np.random.default_rng(0)
  logits = jnp.array(rng.normal(size=vocab_size) * 2.0, jnp.float32)
  logits = logits.at[3].set(-jnp.inf)
  number = 200_000
  keys = jax.random.split(jax.random.key(1), number)
  chunks = keys.reshape(20, -1)
  sampled = jax.lax.map(
    lambda keys: sample(
      keys, jnp.broadcast_to(logits, (len(keys), vocab_size))
    ),
    chunks,
  )
  counts = np.bincount(sampled.ravel(), minlength=vocab_size)
  expected = number * np.array(jax.nn.softmax(logits), np.float64)
  assert counts[3] == 0 and counts.sum() == number
  often = expected > 10
  chi = np.sum((counts - expected)[often] ** 2 / expected[often])
  degrees = often.sum() - 1
  assert abs(chi - degrees) < 5 * np.sqrt(2 * degrees)


def test_what_is_impossible_is_never_drawn():
  """Not even where rounding leaves the target above every running sum."""
  logits = jnp.full((4096, 300), -jnp.inf).at[:, 40:45].set(0.0)
  sampled = sample(jax.random.split(jax.random.key(0), 4096), logits)
  assert set(np.array(sampled)) == {40, 41, 42, 43, 44}
  one = jnp.full((8, 600), -jnp.inf).at[:, 599].set(-7.0)
  assert (sample(jax.random.split(jax.random.key(0), 8), one) == 599).all()


@pytest.mark.parametrize("logit", [-jnp.inf, jnp.nan])
def test_no_token_is_beyond_the_vocabulary(logit):
  """Not even where none can be drawn."""
  logits = jnp.full((8, 300), logit)
  sampled = np.array(sample(jax.random.split(jax.random.key(0), 8), logits))
  assert (sampled >= 0).all() and (sampled < 300).all()


def test_a_row_depends_on_its_own_key_alone():
  logits = jax.random.normal(jax.random.key(2), (6, 300))
  keys = jax.random.split(jax.random.key(3), 6)
  together = sample(keys, logits)
  for row in range(6):
    assert (
      sample(keys[row : row + 1], logits[row : row + 1])[0] == together[row]
    )


WEIGHTS = np.array([[3.0, 0.0, 1.0, 5.0, 0.5], [0.0, 0.2, 0.2, 0.0, 0.1]])


def assert_pairs(pairs_N2, expected):
  """Compare pairs with the probability of each, {(a, b): p}."""
  counts = dict.fromkeys(expected, 0)
  for pair in map(tuple, np.asarray(pairs_N2).tolist()):
    counts[pair] += 1  # a KeyError: an impossible pair
  assert_frequencies(list(counts.values()), list(expected.values()))


@pytest.mark.parametrize("replacement", [False, True])
def test_pairs_are_drawn_as_one_after_the_other(replacement):
  rows = jnp.repeat(jnp.array(WEIGHTS), 20_000, axis=0)
  sampled = multinomial(rows, 2, replacement, key=jax.random.key(5))
  assert sampled.shape == (40_000, 2) and sampled.dtype == jnp.int32
  for half, weights in zip(
    np.split(np.array(sampled), 2), WEIGHTS, strict=True
  ):
    expected, p = {}, weights / weights.sum()
    for a, b in itertools.product(np.flatnonzero(p), repeat=2):
      if replacement:
        expected[a, b] = p[a] * p[b]
      elif a != b:
        expected[a, b] = p[a] * p[b] / (1 - p[a])
    assert_pairs(half, expected)


def test_many_draws_of_a_row_with_replacement_are_independent_of_each_other():
  sampled = multinomial(
    jnp.array(WEIGHTS[0]), 40_000, True, key=jax.random.key(6)
  )
  assert sampled.shape == (40_000,)
  p = WEIGHTS[0] / WEIGHTS[0].sum()
  possible = np.flatnonzero(p)
  pairs = itertools.product(possible, repeat=2)
  expected = {(a, b): p[a] * p[b] for a, b in pairs}
  assert_pairs(np.array(sampled).reshape(-1, 2), expected)


def test_without_replacement_all_come_once_and_zeros_last():
  weights = jnp.array([0.0, 2.0, 0.0, 1e-30, 7.0])
  keys = jax.random.split(jax.random.key(7), 50)
  for key in keys[:5]:
    assert set(multinomial(weights, 3, key=key).tolist()) == {1, 3, 4}
  traced = jax.jit(jax.vmap(lambda key: multinomial(weights + 0, 5, key=key)))
  sampled = np.array(traced(keys))  # nothing can be refused under jit
  assert (np.sort(sampled[:, :3]) == [1, 3, 4]).all()
  assert (np.sort(sampled) == np.arange(5)).all()


def test_scale_of_weights_changes_nothing():
  key, weights = jax.random.key(8), jnp.array(WEIGHTS)
  for replacement in (False, True):
    ours, scaled = (
      multinomial(weights * 2.0**power, 3, replacement, key=key)
      for power in (0, 100)
    )
    np.testing.assert_array_equal(ours, scaled)


@pytest.mark.parametrize(
  ("weights", "number", "replacement", "message"),
  [
    ([1.0, 0.0, 2.0], 3, False, "at most 2"),
    ([[1.0, 1.0], [1.0, 0.0]], 2, False, "at most 1"),
    ([1.0, -0.5], 1, True, "at least 0"),
    ([1.0, np.nan], 1, True, "finite"),
    ([1.0, np.inf], 1, False, "finite"),
    ([[1.0, 1.0], [0.0, 0.0]], 1, True, "must have a positive weight"),
    ([1.0, 1.0], 0, True, "at least 1"),
    ([[[1.0]]], 1, True, "must be"),
    ([], 1, True, "must be"),
    (2.0, 1, True, "must be"),
  ],
)
def test_what_cannot_be_drawn_is_said(weights, number, replacement, message):
  with pytest.raises(ValueError, match=message):
    multinomial(jnp.array(weights), number, replacement, key=jax.random.key(0))


def test_more_draws_than_weights_are_refused_under_jit_too():
  draw_three = jax.jit(lambda w: multinomial(w, 3, key=jax.random.key(0)))
  with pytest.raises(ValueError, match="at most 2"):
    draw_three(jnp.ones(2))
