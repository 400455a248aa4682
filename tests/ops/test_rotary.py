# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np

from lmjax.ops.rotary import rotate


def test_products_depend_on_distance_alone():
  rng = np.random.default_rng(0)
  query, key = rng.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

  def product(i, j):
    q = rotate(jnp.array(query), jnp.array([[i]]))
    k = rotate(jnp.array(key), jnp.array([[j]]))
    return float(jnp.sum(q * k))

  np.testing.assert_allclose(product(7, 3), product(104, 100), rtol=1e-4)
  assert abs(product(7, 3) - product(3, 7)) > 1e-3


def test_position_zero_changes_nothing():
  x = jnp.arange(16.0).reshape(1, 2, 2, 4)
  np.testing.assert_array_equal(rotate(x, jnp.zeros((1, 2), int)), x)
