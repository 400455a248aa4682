# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.layers.position_bias import buckets, linear_biases


def test_buckets_as_documented():
  found = buckets(jnp.array([-1, 0, 3, 4, 8, 99]), True, 8, 16)
  np.testing.assert_array_equal(found, [0, 0, 3, 4, 6, 7])


@pytest.mark.parametrize(
  ("num_heads", "slopes"),
  [
    (8, [2.0**-n for n in range(1, 9)]),
    # Of four heads, then every other one of eight.
    (6, [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]),
  ],
)
def test_linear_biases_have_the_slopes_of_the_paper(num_heads, slopes):
  biases = linear_biases(jnp.array([-2, 0, 1, 3]), num_heads)
  np.testing.assert_allclose(
    biases, -np.array(slopes)[:, None] * np.array([2.0, 0, 1, 3])
  )
