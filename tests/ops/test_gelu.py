# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.ops.gelu import gelu


def test_value_and_gradient_equal_autodiff():
  x = jnp.linspace(-6.0, 6.0, 97)

  def plain(x):
    return jax.nn.gelu(x, approximate=True)

  np.testing.assert_allclose(gelu(x), plain(x), atol=1e-6)
  ours = jax.vmap(jax.grad(gelu))(x)
  np.testing.assert_allclose(ours, jax.vmap(jax.grad(plain))(x), atol=5e-6)
