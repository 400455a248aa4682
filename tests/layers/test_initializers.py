# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.layers.dense import Affine
from lmjax.layers.initializers import orthogonal


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
