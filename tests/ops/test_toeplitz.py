# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.ops.toeplitz import spread


def test_a_value_a_diagonal_and_back():
  values = jnp.array([[1.0, 2, 3, 4], [5, 6, 7, 8]])
  out, vjp = jax.vjp(lambda x: spread(x, 2), values)
  np.testing.assert_array_equal(
    out, [[[2, 3, 4], [1, 2, 3]], [[6, 7, 8], [5, 6, 7]]]
  )
  (sums,) = vjp(jnp.arange(12.0).reshape(2, 2, 3))
  np.testing.assert_array_equal(sums, [[3, 4, 6, 2], [9, 16, 18, 8]])
