# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops.lstm import lstm

B, T, D = 2, 5, 3


def step_by_step(projected_BT4D, kernel, state, resets_BT=None):
  """The same recurrence as a Python loop, differentiated by JAX."""
  h, c = state
  hidden = []
  for t in range(projected_BT4D.shape[1]):
    if resets_BT is not None:
      keep = 1.0 - resets_BT[:, t, None]
      h, c = h * keep, c * keep
    i, f, g, o = jnp.split(projected_BT4D[:, t] + h @ kernel, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    hidden.append(h)
  return jnp.stack(hidden, axis=1), (h, c)


def example(seed=0):
  rng = np.random.default_rng(seed)

  def draw(*shape):
    return jnp.array(rng.normal(size=shape), jnp.float32)

  arguments = (draw(B, T, 4 * D), draw(D, 4 * D), (draw(B, D), draw(B, D)))
  resets_BT = jnp.array(rng.random((B, T)) < 0.3, jnp.float32)
  cotangents = (draw(B, T, D), (draw(B, D), draw(B, D)))
  return arguments, resets_BT, cotangents


@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_values_and_gradients_equal_autodiff_of_a_loop(with_resets, seed):
  arguments, resets_BT, cotangents = example(seed)
  resets_BT = resets_BT if with_resets else None
  ours, our_vjp = jax.vjp(lambda *a: lstm(*a, resets_BT), *arguments)
  plain, vjp = jax.vjp(lambda *a: step_by_step(*a, resets_BT), *arguments)
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  gradients = our_vjp(cotangents), vjp(cotangents)
  for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-6)


def test_two_halves_equal_the_whole():
  (projected, kernel, state), resets, _ = example()
  whole, last = lstm(projected, kernel, state, resets)
  first, middle = lstm(projected[:, :2], kernel, state, resets[:, :2])
  second, end = lstm(projected[:, 2:], kernel, middle, resets[:, 2:])
  np.testing.assert_array_equal(whole, jnp.concatenate([first, second], 1))
  np.testing.assert_array_equal(last, end)


def test_a_reset_forgets_everything_before():
  (projected, kernel, state), _, _ = example()
  resets = jnp.zeros((B, T)).at[:, 2].set(1.0)
  hidden, _ = lstm(projected, kernel, state, resets)
  zeros = jax.tree.map(jnp.zeros_like, state)
  fresh, _ = lstm(projected[:, 2:], kernel, zeros)
  np.testing.assert_array_equal(hidden[:, 2:], fresh)


def test_matches_the_reference_of_jax_experimental():
  from jax.experimental import rnn

  (projected, kernel, (h, c)), _, _ = example()
  rng = np.random.default_rng(3)
  x = jnp.array(rng.normal(size=(B, T, 2)), jnp.float32)
  input_kernel = jnp.array(rng.normal(size=(2, 4 * D)), jnp.float32)
  ours, (h_last, c_last) = lstm(x @ input_kernel, kernel, (h, c))
  theirs, h_ref, c_ref = rnn.lstm_ref(
    x,
    h[None],
    c[None],
    *({0: value} for value in (input_kernel.T, kernel.T)),
    *({0: jnp.zeros(4 * D)} for _ in range(2)),
    jnp.full(B, T, jnp.int32),
    2,
    D,
    1,
    0.0,
    False,
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-5)
  np.testing.assert_allclose(h_last, h_ref[0], atol=1e-5)
  np.testing.assert_allclose(c_last, c_ref[0], atol=1e-5)


def test_bfloat16_matmuls_keep_a_float32_state():
  (projected, kernel, state), resets, _ = example()
  exact, _ = lstm(projected, kernel, state, resets)
  rounded, (h, c) = lstm(projected, kernel.astype(jnp.bfloat16), state, resets)
  assert h.dtype == c.dtype == rounded.dtype == jnp.float32
  assert 0 < np.abs(exact - rounded).max() < 0.05
