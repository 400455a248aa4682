# SPDX-License-Identifier: Apache-2.0
"""The layers of xLSTM against loops in the words of Beck et al. 2024."""

import jax
import numpy as np

from lmjax.layers.mlstm import MLSTMLayer
from lmjax.layers.slstm import SLSTMLayer
from tests.helpers.variables import random_variables

B, T, D, H, CONV = 2, 6, 8, 2, 3
X = np.random.default_rng(1).normal(size=(B, T, D)).astype(np.float32)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def silu(x):
  return x * sigmoid(x)


def convolve(x, params):
  y = np.zeros_like(x) + params["bias"]
  for back in range(CONV):
    y[:, back:] += params["taps"][back] * x[:, : T - back]
  return y


def map_blocks(x, params):
  kernels = params["blocks"]
  blocks = np.split(x, len(kernels), axis=-1)
  mapped = [x @ kernel for x, kernel in zip(blocks, kernels, strict=True)]
  return np.concatenate(mapped, axis=-1)


def normalize_heads(x, params):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * params["scale"]


def run(layer):
  state = layer.initial_state(B, D)
  variables = random_variables(layer, X, state, None)
  out, _ = jax.jit(layer.apply)(variables, X, state, None)
  return out, jax.tree.map(np.float64, variables["params"])


def test_the_mlstm_layer_is_that_of_the_paper():
  """Figure 11; equations 19 to 27."""
  inner, block = 12, 3
  out, p = run(MLSTMLayer(D, inner, H, block, CONV, 1.0))
  K = inner // H
  x, branch = X @ p["up"]["kernel"], X @ p["silu_branch"]["kernel"]
  near = silu(convolve(x, p["conv"]))
  q, k = map_blocks(near, p["query"]), map_blocks(near, p["key"])
  v = map_blocks(x, p["value"])
  of_q, of_k, of_v = p["gates_kernel"]
  gates = q @ of_q + k @ of_k + v @ of_v + p["gates_bias"]
  i, f = gates[..., :H], gates[..., H:]
  q, k, v = (x.reshape(B, T, H, K) for x in (q, k, v))
  memory, normalizer = np.zeros((B, H, K, K)), np.zeros((B, H, K))
  for t in range(T):
    kept, added = sigmoid(f[:, t]), np.exp(i[:, t])
    key = k[:, t] / np.sqrt(K)
    outer = v[:, t, :, :, None] * key[:, :, None]
    memory = kept[..., None, None] * memory + added[..., None, None] * outer
    normalizer = kept[..., None] * normalizer + added[..., None] * key
    found = np.abs((normalizer * q[:, t]).sum(-1, keepdims=True))
    read = (memory @ q[:, t, :, :, None])[..., 0] / np.maximum(found, 1.0)
    hidden = normalize_heads(read, p["read_norm"]).reshape(B, inner)
    hidden = (hidden + p["skip_scale"] * near[:, t]) * silu(branch[:, t])
    expected = hidden @ p["out"]["kernel"]
    np.testing.assert_allclose(out[:, t], expected, atol=1e-3)


def test_the_slstm_layer_is_that_of_the_paper():
  """Figure 10; equations 8 to 14, and 26 to 36 for heads."""
  out, p = run(SLSTMLayer(D, H, CONV, 0.5))
  K = D // H
  near = silu(convolve(X, p["conv"]))
  read = dict(input=near, forget=near, candidate=X, output=X)
  maps = [
    map_blocks(x, p[name]).reshape(B, T, H, K) for name, x in read.items()
  ]
  maps = [x + bias for x, bias in zip(maps, p["gates_bias"], strict=True)]
  h = c = n = np.zeros((B, H, K))
  for t in range(T):
    recurrent = np.einsum("bhk,hkz->bhz", h, p["recurrent_kernel"])
    parts = np.split(recurrent, 4, axis=-1)
    i, f, z, o = (x[:, t] + part for x, part in zip(maps, parts, strict=True))
    c = sigmoid(f) * c + np.exp(i) * np.tanh(z)
    n = sigmoid(f) * n + np.exp(i)
    h = sigmoid(o) * c / n
    expected = normalize_heads(h, p["hidden_norm"]).reshape(B, D)
    np.testing.assert_allclose(out[:, t], expected, atol=1e-3)
