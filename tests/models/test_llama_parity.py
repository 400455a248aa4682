# SPDX-License-Identifier: Apache-2.0
"""The Transformer equals a float64 NumPy reference of LLaMA.

RMSNorm, rotary positions, SwiGLU and grouped queries, as in LLaMA 3 (Touvron et
al. 2023, arXiv:2302.13971; Dubey et al. 2024, arXiv:2407.21783), with the norms
of queries and keys of Qwen 3. The epsilons and bases of released models differ,
so a model of their weights needs both keys.
"""

import functools

import jax
import numpy as np
import pytest

from lmjax.config import defaults
from lmjax.models import MODELS
from tests.helpers.variables import random_variables
from tests.tiny_models import VOCAB_SIZE

B, T, D, H, G, F, L, V = 2, 5, 8, 4, 2, 12, 3, VOCAB_SIZE
K = D // H


def rms_norm(x, scale, epsilon):
  return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + epsilon) * scale


def apply_rope(x_BTHK, base):
  """Rotate (x[k], x[k + K/2]) by t · base^(−2k/K), in complex numbers."""
  first, second = np.split(x_BTHK, 2, axis=-1)
  frequencies = base ** (-np.arange(0, K, 2) / K)
  angles = np.arange(T)[:, None, None] * frequencies
  rotated = (first + 1j * second) * np.exp(1j * angles)
  return np.concatenate([rotated.real, rotated.imag], axis=-1)


def attention(x, p, epsilon, base):
  q, k, v = (
    np.einsum("btd,dhk->bthk", x, p[name]["kernel"])
    for name in ("query", "key", "value")
  )
  q = apply_rope(rms_norm(q, p["query_norm"]["scale"], epsilon), base)
  k = apply_rope(rms_norm(k, p["key_norm"]["scale"], epsilon), base)
  k, v = np.repeat(k, H // G, axis=2), np.repeat(v, H // G, axis=2)
  scores = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(K)
  weights = np.exp(scores) * np.tri(T)
  weights /= weights.sum(-1, keepdims=True)
  out = np.einsum("bhts,bshk->bthk", weights, v)
  return np.einsum("bthk,hkd->btd", out, p["out"]["kernel"])


def feed_forward(x, p):
  gate = x @ p["gate"]["kernel"]
  return (
    gate / (1 + np.exp(-gate)) * (x @ p["up"]["kernel"]) @ p["down"]["kernel"]
  )


def llama(params, tokens, epsilon, base):
  params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  x = params["embedding"]["embedding"][tokens]
  for index in range(L):
    p = jax.tree.map(lambda leaf, i=index: leaf[i], params["blocks"])
    normed = rms_norm(x, p["attention_norm"]["scale"], epsilon)
    x = x + attention(normed, p["attention"], epsilon, base)
    normed = rms_norm(x, p["feed_forward_norm"]["scale"], epsilon)
    x = x + feed_forward(normed, p["feed_forward"])
  hidden = rms_norm(x, params["final_norm"]["scale"], epsilon)
  return hidden @ params["output"]["table"].T


def build(family="transformer", **keys):
  config = defaults.get_config(model=family)
  config.model.update(dict(width=8, num_layers=2, dtype="float32") | keys)
  return MODELS[family](config, V)


@pytest.mark.parametrize(
  ("epsilon", "base"), [(1e-6, 10_000.0), (1e-5, 500_000.0), (0.3, 50.0)]
)
def test_equals_llama_for_any_epsilon_and_rope_base(epsilon, base):
  model = build(
    width=D,
    num_layers=L,
    num_heads=H,
    num_kv_heads=G,
    feed_forward="swiglu",
    feed_forward_width=F,
    norm="rms",
    qk_norm="rms",
    norm_epsilon=epsilon,
    rope_base=base,
    tie_embeddings=False,
  )
  tokens = np.random.default_rng(0).integers(0, V, (B, T))
  variables = random_variables(model, tokens)
  hidden, _ = jax.jit(model.apply)(variables, tokens)
  logits = model.apply(variables, hidden, method="logits")
  expected = llama(variables["params"], tokens, epsilon, base)
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(
  ("family", "keys"),
  [
    ("transformer", {}),
    ("transformer", {"norm": "batch"}),
    ("transformer_xl", {}),
    ("encoder", {}),
    ("encoder_decoder", {}),
    ("min_gru", {}),
    ("min_lstm", {}),
    ("rg_lru", {}),
    ("xlstm", {"blocks": "m", "norm": "none"}),  # the norm of the heads alone
    ("xlstm", {"blocks": "s", "norm": "none"}),
    ("xlstm", {}),
    ("gated_convolution", {"norm": "rms"}),
    ("lstm", {"layer_norm": True}),
    ("recurrent_encoder", {"cell": "layer_norm_lstm"}),
    ("recurrent_seq2seq", {"cell": "layer_norm_lstm"}),
  ],
)
def test_norm_epsilon_changes_every_family_that_has_it(family, keys):
  tokens = np.random.default_rng(0).integers(0, V, (B, T))
  mask = [np.ones((B, T), bool)] if family == "recurrent_encoder" else []
  usual = build(family, **keys)
  variables = random_variables(usual, tokens, *mask)

  @functools.partial(jax.jit, static_argnums=0)
  def output(model):
    options = {}
    if "encoder_decoder" in model.kinds:
      options["memory"] = model.apply(variables, tokens, method="encode")
    return jax.tree.leaves(model.apply(variables, tokens, *mask, **options))[0]

  changed = build(family, **keys, norm_epsilon=0.5)
  assert np.abs(output(usual) - output(changed)).max() > 1e-2
