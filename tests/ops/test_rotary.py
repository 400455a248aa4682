# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np

from lmjax.ops.rotary import angles, rotate


def test_products_depend_on_distance_alone():
  rng = np.random.default_rng(0)
  query, key = rng.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

  def product(i, j):
    q = rotate(jnp.array(query), jnp.array([[i]]))
    k = rotate(jnp.array(key), jnp.array([[j]]))
    return float(jnp.sum(q * k))

  np.testing.assert_allclose(product(7, 3), product(104, 100), rtol=1e-4)
  assert abs(product(7, 3) - product(3, 7)) > 1e-3


def test_angles_are_those_of_the_paper_at_any_position():
  positions = np.array([0, 1, 5, 999, 1024, 70_001, 2**24 + 1, 2**31 - 1])
  frequencies = 10_000.0 ** (-2 * np.arange(4) / 8)
  exact = positions[:, None] * frequencies
  ours = np.array(angles(jnp.array(positions)[:, None], frequencies))
  np.testing.assert_allclose(np.cos(ours), np.cos(exact), atol=2e-3)
  np.testing.assert_allclose(np.sin(ours), np.sin(exact), atol=2e-3)
  x = np.random.default_rng(0).normal(size=(1, 8, 1, 8)).astype(np.float32)
  turned = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * exact)[None, :, None]
  ours = np.array(rotate(jnp.array(x), jnp.array(positions)[None]))
  expected = np.concatenate([turned.real, turned.imag], axis=-1)
  np.testing.assert_allclose(ours, expected, atol=1e-2)


def test_position_zero_changes_nothing():
  x = jnp.arange(16.0).reshape(1, 2, 2, 4)
  np.testing.assert_array_equal(rotate(x, jnp.zeros((1, 2), int)), x)
