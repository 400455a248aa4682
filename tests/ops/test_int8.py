# SPDX-License-Identifier: Apache-2.0
"""Eight bits: how far they are from floats, alone and inside a model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops.int8 import (
  Int8,
  dense,
  dense_weights,
  quantize,
  quantize_weights,
)
from lmjax.ops.key_value_cache import empty_cache, write
from tests.helpers.variables import random_variables
from tests.tiny_models import transformer


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_nothing_is_farther_than_half_a_step(dtype):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(7, 5, 33)), dtype)
  rounded = quantize(x)
  assert rounded.values.dtype == jnp.int8 and rounded.scales.dtype == dtype
  steps = jnp.max(jnp.abs(x), axis=-1, keepdims=True) / 127
  error = jnp.abs(dense(rounded, jnp.float32) - x.astype(jnp.float32))
  slack = 1e-6 if dtype == jnp.float32 else 0.02 * jnp.abs(x)
  assert (error <= 0.5 * steps.astype(jnp.float32) + slack).all()
  again = quantize(dense(rounded, dtype))
  np.testing.assert_array_equal(again.values, rounded.values)


def test_zeros_stay():
  assert not dense(quantize(jnp.zeros((3, 4)))).any()


def test_large_matrices_are_rounded_and_all_else_is_left():
  params = dict(
    kernel=jnp.ones((64, 65)), bias=jnp.ones(5000), small=jnp.eye(4)
  )
  variables = dict(params=params, ngrams=dict(words=jnp.ones((99, 99))))
  rounded = quantize_weights(variables)
  assert isinstance(rounded["params"]["kernel"], Int8)
  assert rounded["params"]["bias"] is params["bias"]
  assert rounded["params"]["small"] is params["small"]
  assert rounded["ngrams"] == variables["ngrams"]
  np.testing.assert_allclose(
    dense_weights(rounded)["params"]["kernel"], params["kernel"], rtol=1e-6
  )


def test_a_cache_of_eight_bits_holds_what_was_written():
  new = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4, 8)))
  cache = empty_cache(2, 1, 5, 4, 8, jnp.float32, int8=True)
  slots = jnp.array([[0, 1, 2], [3, 4, 5]])
  written = dense(write(cache.keys_BGCK[0], new, slots))
  for row in range(2):
    held = jnp.swapaxes(written[row][:, slots[row]], 0, 1)
    np.testing.assert_allclose(held, new[row], atol=0.02)


@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_a_model_that_remembers_in_eight_bits_says_nearly_the_same(positions):
  model = transformer(11, positions=positions, max_context=16, num_kv_heads=2)
  tokens = jnp.array([[1, 2, 3, 4, 5, 6, 7, 8]] * 2)
  variables = random_variables(model, tokens)

  @functools.partial(jax.jit, static_argnums=0)
  def read(model):
    carry = model.initial_carry(2, 16)
    _, carry = model.apply(variables, tokens[:, :4], carry)
    _, carry = model.apply(variables, tokens[:, 4:7], carry)
    hidden, carry = model.apply(variables, tokens[:, 7:], carry)
    logits = model.apply(variables, hidden, method="logits")
    return jax.nn.log_softmax(logits), carry

  exact, _ = read(model)
  rounded, carry = read(model.clone(int8_cache=True))
  assert isinstance(carry.keys_BGCK[0], Int8)
  assert 0 < jnp.abs(exact - rounded).max() < 0.05
