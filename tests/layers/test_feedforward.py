# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest
from scipy.special import erf

from lmjax.layers.feedforward import FEED_FORWARDS, FeedForward


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def gelu(x):
  return x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


FORMULAS = {
  "sigmoid": sigmoid,
  "tanh": np.tanh,
  "relu": lambda x: np.maximum(x, 0),
  "gelu": gelu,
  "gelu_exact": lambda x: x / 2 * (1 + erf(x / 2**0.5)),
  "silu": lambda x: x * sigmoid(x),
  "glu": sigmoid,
  "reglu": lambda x: np.maximum(x, 0),
  "geglu": gelu,
  "swiglu": lambda x: x * sigmoid(x),
  "bilinear": lambda x: x,
}


def test_each_kind_is_its_formula():
  x = np.linspace(-3, 3, 41, dtype=np.float32)
  assert FORMULAS.keys() == FEED_FORWARDS.keys()
  for name, formula in FORMULAS.items():
    out = FEED_FORWARDS[name].activate(x)
    np.testing.assert_allclose(out, formula(x), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["relu", "geglu"])
def test_expand_activate_contract(kind):
  layer = FeedForward(kind, 6, use_bias=True, init_scale=0.7)
  x = jax.random.normal(jax.random.key(0), (2, 3, 4))
  params = jax.jit(layer.init)(jax.random.key(1), x)["params"]
  params = jax.tree.map(lambda leaf: np.array(leaf) + 0.1, params)

  def dense(x, name):
    return np.array(x) @ params[name]["kernel"] + params[name]["bias"]

  up, formula = dense(x, "up"), FORMULAS[kind]
  inner = formula(dense(x, "gate")) * up if kind == "geglu" else formula(up)
  assert len(params) == 2 + (kind == "geglu")
  out = jax.jit(layer.apply)({"params": params}, x)
  np.testing.assert_allclose(out, dense(inner, "down"), atol=1e-5)
