# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np

from lmjax.layers.recurrent import RecurrentLayer
from tests.helpers.variables import random_variables
from tests.tiny_models import VOCAB_SIZE, recurrent

B, T, D = 3, 5, 8
TOKENS = jax.random.randint(jax.random.key(0), (B, T), 0, VOCAB_SIZE)
RNGS = {"dropout": jax.random.key(1)}


def test_residual_layers_add_their_input():
  """Except the first, whose output is wider than its input."""
  model = recurrent("rnn", num_layers=3, residual=True)
  variables = random_variables(model, TOKENS)
  params = variables["params"]
  x = params["embedding"]["embedding"][TOKENS]
  for index in range(3):
    layer = RecurrentLayer("rnn", D)
    state = layer.initial_state(B, x.shape[-1])
    y, _ = layer.apply({"params": params[f"layer_{index}"]}, x, state)
    x = x + y if index else y
  hidden, _ = model.apply(variables, TOKENS)
  np.testing.assert_allclose(hidden, x, atol=1e-5)


def test_each_dropout_rate_applies_to_its_activations():
  """Output dropout zeroes outputs; dropout between layers does not."""
  variables = random_variables(recurrent("rnn"), TOKENS)

  def hidden(**dropout):
    model = recurrent("rnn", **dropout)
    return np.array(model.apply(variables, TOKENS, rngs=RNGS)[0])

  whole, between = hidden(), hidden(hidden_dropout=0.5)
  assert (between != 0).all() and not np.allclose(between, whole)
  behind = hidden(output_dropout=0.5)
  kept = (behind != 0).any(axis=1, keepdims=True)
  assert 0.2 < kept.mean() < 0.8
  np.testing.assert_allclose(behind, 2 * kept * whole, rtol=1e-6)
