# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.scoring.interpolation import fit_weights, interpolate

# NumPy warns of numbers that are none; no text may lead to them.
pytestmark = pytest.mark.filterwarnings("error")


def test_weights_are_those_that_the_text_was_drawn_with():
  """Two models over three tokens; 0.3 of the text comes from the first."""
  rng = np.random.default_rng(0)
  probs = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
  source = (rng.random(200_000) > 0.3).astype(int)
  draws = rng.random(len(source))
  tokens = (draws[:, None] > np.cumsum(probs, axis=1)[source]).sum(axis=1)
  log_probs = np.log(probs[:, tokens])
  weights = fit_weights(log_probs)
  np.testing.assert_allclose(weights, [0.3, 0.7], atol=0.01)
  likelihood = interpolate(log_probs, weights).mean()
  assert likelihood > log_probs.mean(axis=1).max()
  for nudge in (-0.02, 0.02):
    other = interpolate(log_probs, weights + [nudge, -nudge]).mean()
    assert other < likelihood


def test_what_one_model_excludes_the_other_may_say():
  log_probs = np.log(np.array([[0.5, 1e-300, 0.2], [0.25, 0.5, 0.4]]))
  log_probs[0, 1] = -np.inf
  mixed = np.exp(interpolate(log_probs, np.array([0.5, 0.5])))
  np.testing.assert_allclose(mixed, [0.375, 0.25, 0.3])
  assert np.all(fit_weights(log_probs) > 0)
  nothing = np.full((2, 1), -np.inf)
  assert np.isneginf(interpolate(nothing, np.array([0.5, 0.5])))[0]


def test_tokens_that_no_model_allows_change_no_weight():
  log_probs = np.log(np.array([[0.5, 0.1, 0.2], [0.25, 0.5, 0.4]]))
  impossible = np.full((2, 5), -np.inf)
  both = np.concatenate([log_probs, impossible], axis=1)
  np.testing.assert_array_equal(fit_weights(both), fit_weights(log_probs))
  with pytest.raises(UserError, match="no token"):
    fit_weights(impossible)


def test_it_stops_after_as_many_steps_as_it_may_take():
  """The weights of the second step, by hand; 0 is reached in none."""
  log_probs = np.log(np.array([[0.6], [0.2]]))
  weights = fit_weights(log_probs, tolerance=0.0, max_steps=2)
  np.testing.assert_allclose(weights, [0.9, 0.1])
