# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops.grouped_matmul import loop_matmul, ragged_matmul

N, Q, D, F, X = 5, 3, 4, 6, 4
GROUPS = jnp.array([0, 0, 1, 3, 3])  # the third group has no block


@pytest.mark.parametrize("way", [loop_matmul, ragged_matmul])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_each_block_meets_its_own_kernel(way, dtype):
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (N, Q, D), dtype)
  kernels = jax.random.normal(keys[1], (X, D, F), dtype)
  cotangent = jax.random.normal(keys[2], (N, Q, F))

  def plain(x, kernels):
    return jnp.einsum("nqd,ndf->nqf", x, kernels[GROUPS])

  @jax.jit
  def both(x, kernels):
    out, vjp = jax.vjp(lambda *a: way(*a, GROUPS), x, kernels)
    return out, *vjp(cotangent)

  results = both(x, kernels)
  assert [r.dtype for r in results] == [jnp.float32, dtype, dtype]
  precise = (x.astype(jnp.float32), kernels.astype(jnp.float32))
  out, vjp = jax.vjp(plain, *precise)
  tolerance = 1e-5 if dtype == jnp.float32 else 0.1
  for a, b in zip(results, (out, *vjp(cotangent)), strict=True):
    np.testing.assert_allclose(a.astype(jnp.float32), b, atol=tolerance)
