# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops.linear_recurrence import linear_recurrence

B, T, D = 2, 7, 3


def loop(decay, inputs, state, resets):
  states = []
  for t in range(inputs.shape[1]):
    kept = decay[:, t] * (1.0 - resets[:, t, None])
    state = kept * state + inputs[:, t]
    states.append(state)
  return jnp.stack(states, axis=1), state


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("time", [1, T])
def test_values_and_gradients_equal_autodiff_of_a_loop(
  platform, time, monkeypatch
):
  """Step by step, as on a CPU, and as a tree, as elsewhere."""
  monkeypatch.setattr(jax, "default_backend", lambda: platform)
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    arguments = (
      rng.random((B, time, D)),
      rng.normal(size=(B, time, D)),
      rng.normal(size=(B, D)),
    )
    resets = rng.random((B, time)) < 0.3
    cotangents = rng.normal(size=(B, time, D)), rng.normal(size=(B, D))

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradients(function):
      out, vjp = jax.vjp(lambda *a: function(*a, resets), *arguments)
      return out, vjp(cotangents)

    results = with_gradients(linear_recurrence), with_gradients(loop)
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_half_precision_is_summed_up_in_single_precision():
  ones = jnp.ones((1, 999, 1), jnp.bfloat16)
  states, last = linear_recurrence(ones, ones, jnp.zeros((1, 1), jnp.bfloat16))
  assert states.dtype == jnp.float32 and last == 999.0
