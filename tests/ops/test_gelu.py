# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from lmjax.ops.gelu import gelu


def test_value_and_gradient_equal_autodiff():
  """In float64, for XLA's tanh in float32 is some 1e-6 off."""

  def plain(x):
    return jax.nn.gelu(x, approximate=True)

  with jax.enable_x64(True):
    x = jnp.linspace(-6.0, 6.0, 97, dtype=jnp.float64)
    np.testing.assert_allclose(gelu(x), plain(x), atol=1e-12)
    ours, theirs = (jax.vmap(jax.grad(f))(x) for f in (gelu, plain))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
