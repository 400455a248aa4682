# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np

from lmjax.layers.positions import sinusoids


def test_sinusoids_are_those_of_the_paper():
  """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i + 1) = cos(...), by halves."""
  waves = np.array(sinusoids(jnp.array([[0, 3, 70]]), 6))
  for column, place in enumerate((0, 3, 70)):
    for i in range(3):
      angle = place / 10_000 ** (2 * i / 6)
      np.testing.assert_allclose(waves[0, column, i], np.sin(angle), atol=1e-5)
      np.testing.assert_allclose(
        waves[0, column, 3 + i], np.cos(angle), atol=1e-5
      )
