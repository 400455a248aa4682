# SPDX-License-Identifier: Apache-2.0
"""The memory of Transformer-XL."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.variables import random_variables
from tests.tiny_models import VOCAB_SIZE, transformer_xl

B, V, MEMORY = 2, VOCAB_SIZE, 4
MODEL = transformer_xl(num_layers=1, memory=MEMORY)
TOKENS = jax.random.randint(jax.random.key(1), (B, 12), 0, V)


@functools.partial(jax.jit, static_argnums=0)
def hidden(model, variables, tokens, carry=None):
  return model.apply(variables, tokens, carry)


@pytest.fixture(scope="module")
def variables():
  return random_variables(MODEL, TOKENS)


@pytest.mark.parametrize("size", [1, 5])
def test_memory_has_one_size_for_all_chunk_sizes(variables, size):
  """With one layer, a token depends on its segment and the memory before it."""
  start, carry = 12 - size, MODEL.initial_carry(B, 0)
  for segment in (TOKENS[:, :3], TOKENS[:, 3:start]):
    _, carry = hidden(MODEL, variables, segment, carry)
  out, _ = hidden(MODEL, variables, TOKENS[:, start:], carry)
  kept, _ = hidden(MODEL, variables, TOKENS[:, start - MEMORY :])
  np.testing.assert_allclose(out, kept[:, MEMORY:], atol=2e-5)


def test_memory_is_projected_anew_and_gets_no_gradient(
  variables,
):
  """Gradients of a second segment, with the memory as a constant."""

  def loss(variables, memory):
    carry = MODEL.initial_carry(B, 0)
    _, carry = MODEL.apply(variables, TOKENS[:, :4], carry)
    if memory is not None:
      carry = carry._replace(inputs_BMD=memory)
    out, _ = MODEL.apply(variables, TOKENS[:, 4:7], carry)
    return jnp.sum(out**2), carry.inputs_BMD

  grad = jax.jit(jax.grad(loss, has_aux=True))
  through, memory = grad(variables, None)
  beside, _ = grad(variables, memory)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), through, beside
  )
