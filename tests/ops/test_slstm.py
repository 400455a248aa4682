# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.ops.slstm import empty_cells, slstm

B, T, H, K = 2, 6, 3, 4


def loop(gates, kernel, resets):
  """The recurrence of the paper as it stands, without stabilisers."""
  h = c = n = jnp.zeros((B, H, K))
  hidden = []
  for t in range(T):
    keep = 1.0 - resets[:, t, None, None]
    h, c, n = keep * h, keep * c, keep * n
    recurrent = jnp.einsum("bhk,hkz->bhz", h, kernel).reshape(B, H, 4, K)
    i, f, z, o = jnp.moveaxis(recurrent, 2, 0) + jnp.moveaxis(gates[:, t], 1, 0)
    c = jax.nn.sigmoid(f) * c + jnp.exp(i) * jnp.tanh(z)
    n = jax.nn.sigmoid(f) * n + jnp.exp(i)
    h = jax.nn.sigmoid(o) * c / n
    hidden.append(h)
  return jnp.stack(hidden, axis=1), h


def example():
  rng = np.random.default_rng(0)
  gates = rng.normal(size=(B, T, 4, H, K)) * 2
  return gates, rng.normal(size=(H, K, 4 * K)), rng.random((B, T)) < 0.3, rng


def empty():
  return jax.tree.map(jnp.float64, empty_cells(B, H, K))


def test_values_and_gradients_equal_autodiff_of_a_loop():
  """In one piece, and in two, of which the first has no resets."""
  with jax.enable_x64(True):
    gates, kernel, resets, rng = example()
    cotangents = rng.normal(size=(B, T, H, K)), rng.normal(size=(B, H, K))
    resets[:, :2] = False

    def whole(gates, kernel):
      hidden, cells = slstm(gates, kernel, empty(), resets)
      return hidden, cells.hidden

    def pieces(gates, kernel):
      first, cells = slstm(gates[:, :2], kernel, empty())
      second, cells = slstm(gates[:, 2:], kernel, cells, resets[:, 2:])
      return jnp.concatenate([first, second], axis=1), cells.hidden

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradients(function):
      out, vjp = jax.vjp(function, gates, kernel)
      return out, vjp(cotangents)

    expected = with_gradients(lambda *a: loop(*a, resets))
    for function in (whole, pieces):
      results = with_gradients(function), expected
      for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_gates_as_large_as_they_may_get_overflow_nowhere():
  _, kernel, resets, _ = example()

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1))
  def gradients(gates, kernel):
    return slstm(gates, kernel, empty_cells(B, H, K), resets)[0].sum()

  signs = jnp.array([1.0, -1.0, 1.0, -1.0])[:, None, None]
  for size in (-300.0, 300.0):
    gates = jnp.broadcast_to(size * signs, (B, T, 4, H, K))
    for leaf in gradients(gates, kernel):
      assert np.isfinite(leaf).all()
