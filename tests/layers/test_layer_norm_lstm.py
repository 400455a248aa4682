# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np

from lmjax.layers.recurrent import RecurrentLayer
from tests.helpers.variables import random_variables

B, T, E, D = 2, 5, 3, 4


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def normalize(x):
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(
    x.var(-1, keepdims=True) + 1e-5
  )


def test_the_layer_normalised_lstm_is_that_of_the_paper():
  """Ba et al. 2016, equations 20 to 22."""
  x = np.random.default_rng(1).normal(size=(B, T, E)).astype(np.float32)
  layer = RecurrentLayer("layer_norm_lstm", D)
  state = layer.initial_state(B, E)
  variables = random_variables(layer, x, state)
  hidden, (last_h, last_c) = layer.apply(variables, x, state)
  p = jax.tree.map(np.asarray, variables["params"])
  x = np.asarray(x)
  h = c = np.zeros((B, D))
  for t in range(T):
    recurrent = normalize(h @ p["recurrent_kernel"]) * p["recurrent_scale"]
    projected = normalize(x[:, t] @ p["input_kernel"])
    gates = recurrent + projected * p["input_norm"]["scale"] + p["bias"]
    i, f, g, o = np.split(gates, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = normalize(c) * p["cell_scale"] + p["cell_bias"]
    h = sigmoid(o) * np.tanh(h)
    np.testing.assert_allclose(hidden[:, t], h, atol=1e-5)
  np.testing.assert_allclose(last_h, h, atol=1e-5)
  np.testing.assert_allclose(last_c, c, atol=1e-5)
