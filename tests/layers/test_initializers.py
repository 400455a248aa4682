# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.layers.dense import Affine
from lmjax.layers.initializers import orthogonal
from lmjax.layers.recurrent import RecurrentLayer
from lmjax.tree import named_leaves
from tests.tiny_models import built


@pytest.mark.parametrize("shape", [(32, 32), (5, 40), (40, 5)])
def test_orthogonal_matrices_are_orthogonal(shape):
  matrix = np.array(orthogonal(jax.random.key(0), shape))
  assert matrix.shape == shape
  if shape[0] > shape[1]:
    matrix = matrix.T
  np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-5)


@pytest.mark.parametrize(
  ("name", "variance"),
  [
    ("normal", 0.3**2),
    ("glorot_uniform", 2 / (48 + 160)),
    ("uniform", 1 / 48 / 3),
    ("glorot_normal", 2 / (48 + 160)),
    ("he_normal", 2 / 48),
    ("lecun_normal", 1 / 48),
    ("orthogonal", 1 / 160),
  ],
)
def test_kernels_are_matrices_from_all_inputs_to_all_features(name, variance):
  layer = Affine((6, 8), (16, 10), init_scale=0.3, initializer=name)
  kernel = layer.init(jax.random.key(0))["params"]["kernel"]
  assert kernel.shape == (6, 8, 16, 10)
  np.testing.assert_allclose(jnp.var(kernel), variance, rtol=0.05)


def test_recurrent_kernels_are_drawn_as_is_asked_gate_by_gate():
  def draw(**options):
    layer = RecurrentLayer("lstm", 12, **options)
    state = layer.initial_state(1, 48)
    params = layer.init(jax.random.key(0), jnp.zeros((1, 1, 48)), state)
    return params["params"]

  drawn = draw(initializer="he_normal", recurrent_initializer="orthogonal")
  np.testing.assert_allclose(drawn["input_kernel"].var(), 2 / 48, rtol=0.1)
  gates = np.split(np.array(drawn["recurrent_kernel"]), 4, axis=1)
  for gate, other in zip(gates, gates[1:] + gates[:1], strict=True):
    np.testing.assert_allclose(gate @ gate.T, np.eye(12), atol=1e-5)
    assert not np.allclose(gate, other)
  assert np.abs(draw()["recurrent_kernel"]).max() < 12**-0.5


@pytest.mark.parametrize("family", ["transformer", "lstm"])
def test_a_model_draws_its_kernels_as_its_config_says(family):
  def kernels(name):
    model = built(family, width=64, initializer=name)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 2), int))
    leaves = named_leaves(variables)
    wanted = ("feed_forward/up/kernel", "layer_0/input_kernel")
    return [leaf for key, leaf in leaves.items() if key.endswith(wanted)]

  for name, factor in (("he_normal", 2.0), ("lecun_normal", 1.0)):
    (kernel,) = kernels(name)
    np.testing.assert_allclose(kernel.var(), factor / 64, rtol=0.1)
