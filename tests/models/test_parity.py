# SPDX-License-Identifier: Apache-2.0
"""Outputs and gradients equal those of PyTorch layers and transformers' T5.

golden/make_transformers.py writes the reference values.
"""

import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.layers.attention import CrossAttention, SelfAttention
from lmjax.layers.attention_context import (
  bidirectional_context,
  causal_context,
  cross_attention_range,
)
from lmjax.layers.feedforward import FeedForward
from lmjax.layers.position_bias import buckets
from lmjax.layers.transformer_block import Block
from tests.helpers.agreement import assert_near_reference
from tests.tiny_models import encoder_decoder

T, S, D, H, K, V, L = 5, 4, 8, 2, 4, 11, 2
MASK = jnp.array([[True] * 4, [True, True, False, False]])
with np.load(Path(__file__).parent / "golden" / "transformers.npz") as file:
  GOLDEN = dict(file)


def golden(case, kind):
  start = f"{case}/{kind}/"
  return {
    name.removeprefix(start): leaf
    for name, leaf in GOLDEN.items()
    if name.startswith(start)
  }


def agree(case, run, parameters, inputs, convert):
  """Compare the output of `run(parameters, inputs)`, and all gradients."""

  @jax.jit
  def both(parameters, inputs, cotangent):
    out, vjp = jax.vjp(run, parameters, inputs)
    return out, *vjp(cotangent)

  cotangent = golden(case, "cotangent")["cotangent"]
  out, *gradients = both(parameters, inputs, cotangent)
  assert_near_reference(out, golden(case, "out")["out"])
  expected = golden(case, "gradients")
  own = {name: expected.pop(name) for name in inputs}
  assert_near_reference(gradients, [convert(expected), own])


def linear(weights, name):
  """Convert nn.Linear, whose kernel is [outputs, inputs]."""
  return {
    "kernel": weights[f"{name}.weight"].T,
    "bias": weights[f"{name}.bias"],
  }


def heads(weights, name):
  """Convert nn.MultiheadAttention, which stacks query, key and value."""
  kernels = np.split(weights[f"{name}in_proj_weight"], 3)
  biases = np.split(weights[f"{name}in_proj_bias"], 3)
  layers = {
    part: {"kernel": kernel.T.reshape(D, H, K), "bias": bias.reshape(H, K)}
    for part, kernel, bias in zip(
      ("query", "key", "value"), kernels, biases, strict=True
    )
  }
  out = linear(weights, f"{name}out_proj")
  return layers | {"out": {**out, "kernel": out["kernel"].reshape(H, K, D)}}


def attend_to(layers, memory_BSD):
  """Project a memory to keys and values, [B, H, S, K]."""
  return [
    jnp.einsum("bsd,dhk->bhsk", memory_BSD, layers[name]["kernel"])
    + layers[name]["bias"][None, :, None]
    for name in ("key", "value")
  ]


def test_self_attention_equals_pytorch():
  weights = golden("causal", "parameters")
  parameters = heads(weights, "")
  layer = SelfAttention(num_heads=H, num_kv_heads=H, use_bias=True)
  attention_context = causal_context((2, T), None, None, 0)

  def run(parameters, inputs):
    return layer.apply(
      {"params": parameters}, inputs["x"], attention_context, None
    )[0]

  inputs = golden("causal", "inputs")
  convert = functools.partial(heads, name="")
  agree("causal", run, parameters, inputs, convert)
  variables = {"params": parameters}
  _, seen = layer.apply(
    variables, inputs["x"], attention_context, None, mutable=["intermediates"]
  )
  expected = golden("causal", "out")["weights"]
  (found,) = seen["intermediates"]["weights"]
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cross_attention_equals_pytorch():
  parameters = heads(golden("cross", "parameters"), "")
  layer = CrossAttention(num_heads=H, use_bias=True)

  def run(parameters, inputs, **options):
    own = {name: parameters[name] for name in ("query", "out")}
    memory = attend_to(parameters, inputs["memory"])
    attention_range = cross_attention_range(MASK, T)
    return layer.apply(
      {"params": own}, inputs["x"], memory, attention_range, **options
    )

  inputs = golden("cross", "inputs")
  convert = functools.partial(heads, name="")
  agree("cross", run, parameters, inputs, convert)
  _, seen = run(parameters, inputs, mutable=["intermediates"])
  (found,) = seen["intermediates"]["weights"]
  expected = golden("cross", "out")["weights"]
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
  ("kind", "order", "activation"),
  [
    ("encoder", "pre", "relu"),
    ("encoder", "post", "gelu"),
    ("decoder", "pre", "gelu"),
    ("decoder", "post", "relu"),
  ],
)
def test_block_equals_pytorch(kind, order, activation):
  case, has_cross_attention = f"{kind} {order} {activation}", kind == "decoder"
  names = ["attention", "cross_attention", "feed_forward"]
  if not has_cross_attention:
    names.remove("cross_attention")

  def convert(weights):
    """Convert to Block, with the projections of the memory apart."""
    converted = {
      "attention": heads(weights, "self_attn."),
      "feed_forward": {
        "up": linear(weights, "linear1"),
        "down": linear(weights, "linear2"),
      },
    }
    for number, name in enumerate(names, 1):
      converted[f"{name}_norm"] = {
        "scale": weights[f"norm{number}.weight"],
        "bias": weights[f"norm{number}.bias"],
      }
    if has_cross_attention:
      cross = heads(weights, "multihead_attn.")
      converted["memory"] = {name: cross.pop(name) for name in ("key", "value")}
      converted["cross_attention"] = cross
    return converted

  partial = functools.partial
  shared = dict(num_heads=H, use_bias=True)
  block = Block(
    attention=partial(
      SelfAttention, num_kv_heads=H, causal=has_cross_attention, **shared
    ),
    feed_forward=partial(FeedForward, activation, 12, use_bias=True),
    norm=partial(nn.LayerNorm, epsilon=1e-5),
    dropout=0.0,
    norm_position=order,
    cross_attention=partial(CrossAttention, **shared)
    if has_cross_attention
    else None,
  )
  if has_cross_attention:
    attention_context, attention_range = (
      causal_context((2, T), None, None, 0),
      cross_attention_range(MASK, T),
    )
  else:
    attention_context, attention_range = (
      bidirectional_context((2, S), None, None),
      None,
    )

  def run(parameters, inputs):
    own, memory = dict(parameters), None
    if has_cross_attention:
      memory = attend_to(own.pop("memory"), inputs["memory"])
    return block.apply(
      {"params": own},
      inputs["x"],
      (None, memory),
      attention_context,
      attention_range,
    )[0]

  parameters = convert(golden(case, "parameters"))
  agree(case, run, parameters, golden(case, "inputs"), convert)


def t5_parameters(weights):
  """Convert T5, which folds the scale 1/√K of scores into its queries."""

  def kernel(name, shape, factor=1.0):
    return factor * weights[f"{name}.weight"].T.reshape(shape)

  def attention(name, own_memory):
    layers = {
      "query": {"kernel": kernel(f"{name}.q", (D, H, K), K**0.5)},
      "key": {"kernel": kernel(f"{name}.k", (D, H, K))},
      "value": {"kernel": kernel(f"{name}.v", (D, H, K))},
      "out": {"kernel": kernel(f"{name}.o", (H, K, D))},
    }
    if own_memory:
      return layers
    return {name: layers[name] for name in ("query", "out")}

  def block(name, has_cross_attention):
    parts = ["attention", "cross_attention", "feed_forward"]
    if not has_cross_attention:
      parts.remove("cross_attention")
    names = {part: f"{name}.layer.{i}" for i, part in enumerate(parts)}
    made = {
      f"{part}_norm": {"scale": weights[f"{path}.layer_norm.weight"]}
      for part, path in names.items()
    }
    path = names["attention"]
    made["attention"] = attention(f"{path}.SelfAttention", True)
    if has_cross_attention:
      path = names["cross_attention"]
      made["cross_attention"] = attention(f"{path}.EncDecAttention", False)
    path = f"{names['feed_forward']}.DenseReluDense"
    made["feed_forward"] = {
      "gate": {"kernel": kernel(f"{path}.wi_0", (D, -1))},
      "up": {"kernel": kernel(f"{path}.wi_1", (D, -1))},
      "down": {"kernel": kernel(f"{path}.wo", (-1, D))},
    }
    return made

  def stacked(layers):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *layers)

  def stack(name):
    has_cross_attention = name == "decoder"
    bias = "layer.0.SelfAttention.relative_attention_bias.weight"
    return {
      "blocks": stacked(
        [block(f"{name}.block.{i}", has_cross_attention) for i in range(L)]
      ),
      "relative_bias": {"bias": weights[f"{name}.block.0.{bias}"]},
      "final_norm": {"scale": weights[f"{name}.final_layer_norm.weight"]},
    }

  def memories(part):
    return stacked(
      [
        {
          "kernel": kernel(
            f"decoder.block.{i}.layer.1.EncDecAttention.{part}", (D, H, K)
          )
        }
        for i in range(L)
      ]
    )

  return {
    **stack("decoder"),
    "encoder": stack("encoder"),
    "embedding": {"embedding": weights["shared.weight"]},
    "memory_key": memories("k"),
    "memory_value": memories("v"),
  }


def test_model_equals_t5():
  model = encoder_decoder(
    V,
    width=D,
    num_layers=L,
    num_encoder_layers=L,
    num_heads=H,
    num_kv_heads=H,
    feed_forward="geglu",
    feed_forward_width=12,
    norm="rms",
    positions="relative",
    max_context=T,
    dropout=0.0,
    use_bias=False,
    tie_embeddings=True,
    remat=False,
  )
  tokens = golden("t5", "inputs")

  def run(parameters, inputs):
    del inputs
    variables = {"params": parameters}
    memory = model.apply(variables, tokens["sources"], MASK, method="encode")
    return model.apply(variables, tokens["targets"], memory=memory)[0]

  parameters = t5_parameters(golden("t5", "parameters"))

  def convert(gradients):
    """Undo the factor √K, by which the converted queries grew, twice."""
    shrunk = {
      name: leaf / K if name.endswith(".q.weight") else leaf
      for name, leaf in gradients.items()
    }
    return t5_parameters(shrunk)

  agree("t5", run, parameters, {}, convert)


@pytest.mark.parametrize("kind", ["causal", "both sides"])
def test_relative_position_buckets_equal_t5(kind):
  found = buckets(jnp.arange(-200, 201), kind == "causal", 32, 128)
  np.testing.assert_array_equal(found, GOLDEN[f"buckets/{kind}"])
