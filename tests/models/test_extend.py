# SPDX-License-Identifier: Apache-2.0
"""Rolling back a carry equals never having processed the later tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.models.neural_cache import NeuralCache
from tests.helpers.variables import random_variables
from tests.tiny_models import VOCAB_SIZE, make_models

MODELS = make_models(dropout=0.0)
CHOSEN = ("lstm", "rotary, swiglu, rms, grouped, remat", "xl", "rg_lru")
BACK = np.array([2, 1])


@pytest.mark.parametrize(
  "name", [*CHOSEN, "sinusoidal, one kv head, windowed", "cache"]
)
def test_rollback_equals_processing_fewer_tokens(name):
  model = MODELS["lstm" if name == "cache" else name]
  tokens = jnp.array(np.random.default_rng(0).integers(0, VOCAB_SIZE, (2, 9)))
  variables = random_variables(model, tokens)
  if name == "cache":
    model = NeuralCache(model, size=6, theta=0.3, weight=0.4)

  @jax.jit
  def read(tokens, carry):
    hidden, carry = model.apply(variables, tokens, carry)
    return model.apply(variables, hidden, method="logits"), carry

  @jax.jit
  def extend(tokens, carry):
    hidden, carry, snapshots = model.apply(
      variables, tokens, carry, method="extend"
    )
    snapshots = jax.tree.map(lambda x: x[BACK - 1, jnp.arange(2)], snapshots)
    logits = model.apply(variables, hidden, method="logits")
    return logits, model.rollback(carry, snapshots)

  first, then, last = jnp.split(tokens, 3, axis=1)
  _, before = read(first, model.initial_carry(2, 12))
  logits, carry = extend(then, before)
  expected, _ = read(then, before)
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
  found, _ = read(last, carry)
  carry = before
  for number in (1, 2):
    _, carry = read(then[:, number - 1 : number], carry)
    expected, _ = read(last, carry)
    row = BACK.tolist().index(number)
    np.testing.assert_allclose(found[row], expected[row], rtol=1e-4, atol=1e-4)
