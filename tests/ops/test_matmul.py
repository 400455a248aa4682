# SPDX-License-Identifier: Apache-2.0
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops.bits import as_bits, from_bits, transposed
from lmjax.ops.matmul import matmul


def draw(*shape, seed=0):
  return jnp.array(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("widths", [(7,), (7, 2, 2)])
def test_gradients_equal_autodiff(widths):
  with jax.enable_x64(True):
    x, kernel, dy = draw(5, 3), draw(3, sum(widths), seed=1), draw(5, 11)
    dy = dy[:, : sum(widths)]
    ends = np.cumsum(widths)[:-1]

    def ours(x, kernel):
      kernels = tuple(jnp.split(kernel, ends, axis=1))
      return jnp.concatenate(matmul(x, kernels), axis=1)

    out, vjp = jax.vjp(ours, x, kernel)
    plain, plain_vjp = jax.vjp(lambda x, kernel: x @ kernel, x, kernel)
    np.testing.assert_allclose(out, plain, rtol=1e-12)
    for a, b in zip(vjp(dy), plain_vjp(dy), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("widths", [(32,), (256,), (32, 256)])
def test_bfloat16_products_stay_bfloat16_on_the_way_back(widths):
  x, kernel = draw(256, 64), 0.02 * draw(64, sum(widths), seed=1)

  def loss(x, kernel):
    kernels = jnp.split(kernel.astype(jnp.bfloat16), widths[:1], axis=1)
    products = matmul(x.astype(jnp.bfloat16), tuple(kernels[: len(widths)]))
    return sum(jnp.sum(jnp.tanh(y) ** 2) for y in products)

  grad = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel)
  products = re.findall(r"dot_general .*?: \((.*?)\) ->", grad.as_text())
  assert len(products) == 1 + 2 * len(widths)
  assert not any("f32" in operands.replace("bf16", "") for operands in products)
  exact = jax.grad(lambda x, w: jnp.sum(jnp.tanh(x @ w) ** 2), (0, 1))
  for a, b in zip(grad.compile()(x, kernel), exact(x, kernel), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, atol=0.02 * np.abs(b).max())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_transposed_and_bits_change_nothing(dtype):
  x = draw(5, 3).astype(dtype)
  np.testing.assert_array_equal(jax.jit(transposed)(x), x.T)
  np.testing.assert_array_equal(from_bits(as_bits(x), dtype), x)
