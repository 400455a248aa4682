# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.decoding.filters import Ban, Greedy, Temperature, TopK, TopP, chain

# Probabilities 0.5, 0.1, 0.25, 0.15 in both rows, the second turned round.
PROBABILITY = np.array([[0.5, 0.1, 0.25, 0.15], [0.15, 0.25, 0.1, 0.5]])
LOGITS = jnp.log(jnp.array(PROBABILITY)) + 3.0


def kept(logits) -> list[set[int]]:
  return [set(np.flatnonzero(np.isfinite(row)).tolist()) for row in logits]


@pytest.mark.parametrize(
  ("choose", "expected"),
  [
    (Ban((0, 3)), [{1, 2}, {1, 2}]),
    (Greedy(), [{0}, {3}]),
    (TopK(1), [{0}, {3}]),
    (TopK(3), [{0, 2, 3}, {0, 1, 3}]),
    (TopK(99), [{0, 1, 2, 3}] * 2),
    (TopP(0.01), [{0}, {3}]),
    (TopP(0.49), [{0}, {3}]),
    (TopP(0.6), [{0, 2}, {1, 3}]),
    (TopP(0.8), [{0, 2, 3}, {0, 1, 3}]),
    (TopP(1.0), [{0, 1, 2, 3}] * 2),
    (chain([Ban((0,)), TopK(1)]), [{2}, {3}]),
    (chain([Temperature(0.25), TopP(0.9)]), [{0}, {3}]),
    (chain([]), [{0, 1, 2, 3}] * 2),
  ],
)
def test_which_tokens_are_left(choose, expected):
  filtered = choose(LOGITS)
  assert kept(filtered) == expected


@pytest.mark.parametrize("choose", [Temperature(0.5), TopK(3), TopP(1.0)])
def test_where_only_the_banned_is_possible_all_others_are_alike(choose):
  """In the first row; the second is as it would be."""
  logits = LOGITS.at[0, 1:].set(-jnp.inf)
  filtered = chain([Ban((0,)), choose])(logits)
  assert kept(filtered) == [{1, 2, 3}] * 2
  assert len(set(filtered[0, 1:].tolist())) == 1
  np.testing.assert_array_equal(
    filtered[1], chain([Ban((0,)), choose])(LOGITS)[1]
  )
  assert kept(chain([Ban((0,)), Greedy()])(logits)) == [{1}, {3}]


def test_what_is_left_keeps_its_logits():
  filtered = TopK(2)(LOGITS)
  finite = np.isfinite(filtered)
  np.testing.assert_array_equal(filtered[finite], LOGITS[finite])


def test_temperature_divides():
  np.testing.assert_allclose(Temperature(0.5)(LOGITS), 2 * LOGITS, rtol=1e-6)


def test_greedy_takes_one_of_equals():
  assert kept(Greedy()(jnp.zeros((1, 5)))) == [{0}]
