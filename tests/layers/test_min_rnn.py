# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.layers.min_rnn import CELLS, positive
from lmjax.ops.linear_recurrence import linear_recurrence

B, T, D = 2, 7, 3


def in_log_space(cell, gates, candidate):
  """Algorithms 6 and 8 of the paper, from an empty state on."""
  candidate = np.where(
    candidate >= 0,
    np.log(np.maximum(candidate, 0) + 0.5),
    log_sigmoid(candidate),
  )
  if cell == "min_gru":
    log_keep, log_add = log_sigmoid(-gates[0]), log_sigmoid(gates[0])
  else:
    odds = log_sigmoid(gates[0]) - log_sigmoid(gates[1])
    log_keep, log_add = log_sigmoid(odds), log_sigmoid(-odds)
  kept = np.cumsum(log_keep, axis=1)
  terms = np.logaddexp.accumulate(log_add + candidate - kept, axis=1)
  return np.exp(kept + terms)


def log_sigmoid(x):
  return -np.logaddexp(0, -x)


@pytest.mark.parametrize("cell", CELLS)
def test_states_are_those_of_the_form_in_log_space(cell):
  function, names = CELLS[cell]
  rng = np.random.default_rng(0)
  maps = 3 * rng.normal(size=(1 + len(names), B, T, D))
  candidate, *gates = map(jnp.float32, maps)
  kept, added = function(gates, positive(candidate))
  states, _ = linear_recurrence(kept, added, jnp.zeros((B, D)))
  expected = in_log_space(cell, maps[1:], maps[0])
  np.testing.assert_allclose(states, expected, rtol=1e-4)


def test_gates_that_are_closed_alike_share_alike():
  function, _ = CELLS["min_lstm"]
  for size in (-80.0, -30.0, 30.0):
    kept, added = function([jnp.full((1,), size)] * 2, jnp.ones(1))
    np.testing.assert_allclose([kept, added], 0.5, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_closed_gates_give_no_nonsense(cell):
  function, names = CELLS[cell]
  for size in (-200.0, 200.0):
    gates = [jnp.full((1,), size) for _ in names]
    run = lambda gates: sum(function(gates, jnp.ones(1)))[0]  # noqa: E731
    for leaf in jax.tree.leaves(jax.value_and_grad(run)(gates)):
      assert np.isfinite(leaf).all()
