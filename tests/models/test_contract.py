# SPDX-License-Identifier: Apache-2.0
"""Properties of every autoregressive model."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.layers.mlstm import MLSTMLayer
from lmjax.models.transformer import Transformer
from lmjax.models.transformer_xl import TransformerXL
from lmjax.tree import named_leaves
from tests.helpers.variables import random_variables
from tests.tiny_models import VOCAB_SIZE, clone, make_models, transformer

B, T, V = 2, 7, VOCAB_SIZE
MODELS = make_models(dropout=0.3)


@pytest.fixture(scope="module", params=MODELS)
def model(request):
  """A model, variables large enough to affect the output, and tokens."""
  model = MODELS[request.param]
  tokens = jnp.array(np.random.default_rng(0).integers(0, V, (B, T)))
  return model, random_variables(model, tokens), tokens


@functools.partial(jax.jit, static_argnums=0)
def logits(model, variables, tokens, carry=None, resets=None, **options):
  hidden, carry = model.apply(variables, tokens, carry, resets, **options)
  return model.apply(variables, hidden, method="logits"), carry


@pytest.mark.parametrize("sizes", [[7], [1] * 7, [3, 1, 3]])
def test_incremental_equals_full_forward_pass(model, sizes):
  model, variables, tokens = model
  full, _ = logits(model, variables, tokens)
  carry, chunks, start = model.initial_carry(B, 9), [], 0
  for size in sizes:
    chunk = tokens[:, start : start + size]
    out, carry = logits(model, variables, chunk, carry)
    chunks.append(out)
    start += size
  np.testing.assert_allclose(
    full, jnp.concatenate(chunks, 1), rtol=1e-5, atol=2e-5
  )


@pytest.mark.parametrize("rows", [1, B])
def test_decoding_layout_computes_the_same(model, rows):
  model, variables, tokens = model
  tokens = tokens[:rows]
  expected, _ = logits(model, variables, tokens)
  decoder, laid_out = model.for_decoding(variables, rows)
  carry, chunks = decoder.initial_carry(rows, 9), []
  for start, stop in ((0, 4), (4, 5), (5, 6), (6, 7)):
    chunk = tokens[:, start:stop]
    out, carry = logits(decoder, laid_out, chunk, carry)
    chunks.append(out)
  np.testing.assert_allclose(
    expected, jnp.concatenate(chunks, 1), rtol=1e-5, atol=2e-5
  )


@pytest.mark.parametrize("size", [1, 2, 5])
def test_full_cache_has_one_context_size_for_all_chunk_sizes(size):
  """With capacity C a chunk depends on itself and the C tokens before it."""
  model = clone(MODELS["rotary, swiglu, rms, grouped, remat"], num_layers=1)
  tokens = jax.random.randint(jax.random.key(1), (B, 12), 0, V)
  variables = model.init(jax.random.key(0), tokens)
  capacity, start = 4, 12 - size
  carry = model.initial_carry(B, capacity)
  for chunk in (tokens[:, :3], tokens[:, 3:start]):
    _, carry = logits(model, variables, chunk, carry)
  out, _ = logits(model, variables, tokens[:, start:], carry)
  visible = tokens[:, start - capacity :]
  expected, _ = logits(
    model, variables, visible
  )  # rotary: distances alone count
  np.testing.assert_allclose(out, expected[:, capacity:], rtol=1e-5, atol=2e-5)


def test_no_token_depends_on_a_later_one(model):
  """Causality by gradient: ∂ output[t] / ∂ input[s] is 0 exactly if s > t."""
  model, variables, tokens = model
  table = variables["params"]["embedding"]["embedding"]
  changed = {**variables["params"]}

  @jax.jit
  @jax.grad
  def gradient(offsets_TE, t):
    # A vocabulary entry per position, so that each offset affects one position.
    own = jnp.concatenate([table, table[tokens[0]] + offsets_TE])
    changed["embedding"] = {"embedding": own}
    own_tokens = V + jnp.arange(T)[None]
    wider = model.clone(vocab_size=V + T)
    hidden, _ = wider.apply({**variables, "params": changed}, own_tokens)
    return jnp.sum(hidden[0, t] ** 2)

  zeros = jnp.zeros((T, table.shape[1]))
  for t in range(T):
    reach = jnp.abs(gradient(zeros, t)).sum(axis=1)
    np.testing.assert_array_equal(reach[t + 1 :], 0.0)
    assert np.all(reach[: t + 1] > 0)


@pytest.mark.parametrize("with_carry", [False, True])
def test_packed_documents_equal_separate_documents(model, with_carry):
  model, variables, tokens = model
  resets = jnp.zeros((B, T), bool).at[:, 3].set(True).at[0, 5].set(True)
  carry = model.initial_carry(B, 16) if with_carry else None
  packed, _ = logits(model, variables, tokens, carry, resets)
  for row, cuts in enumerate([[0, 3, 5, 7], [0, 3, 7]]):
    for start, stop in zip(cuts, cuts[1:], strict=False):
      alone, _ = logits(model, variables, tokens[row : row + 1, start:stop])
      np.testing.assert_allclose(
        packed[row, start:stop], alone[0], rtol=1e-5, atol=2e-5
      )


def test_reset_in_a_later_chunk_hides_the_carry(model):
  model, variables, tokens = model
  carry = model.initial_carry(B, 16)
  _, carry = logits(model, variables, tokens[:, :3], carry)
  resets = jnp.zeros((B, 4), bool).at[:, 0].set(True)
  after, carry = logits(model, variables, tokens[:, 3:], carry, resets)
  alone, _ = logits(model, variables, tokens[:, 3:])
  np.testing.assert_allclose(after, alone, rtol=1e-5, atol=2e-5)
  more, _ = logits(model, variables, tokens[:, :2], carry)
  longer = jnp.concatenate([tokens[:, 3:], tokens[:, :2]], axis=1)
  alone, _ = logits(model, variables, longer)
  np.testing.assert_allclose(more, alone[:, 4:], rtol=1e-5, atol=2e-5)


def test_every_leaf_of_a_carry_has_its_batch_axis_first(model):
  model, variables, tokens = model
  _, carry = logits(model, variables, tokens, model.initial_carry(B, 9))
  swapped = jax.tree.map(lambda leaf: leaf[::-1], carry)
  ours, _ = logits(model, variables, tokens, carry)
  theirs, _ = logits(model, variables, tokens[::-1], swapped)
  np.testing.assert_allclose(ours[::-1], theirs, atol=1e-5)


def test_dropout_is_active_only_with_a_key(model):
  model, variables, tokens = model
  once, _ = logits(model, variables, tokens)
  again, _ = logits(model, variables, tokens)
  np.testing.assert_array_equal(once, again)
  rngs = {"dropout": jax.random.key(0)}
  dropped, _ = logits(model, variables, tokens, rngs=rngs)
  assert np.abs(once - dropped).max() > 1e-3


def test_bfloat16_model_keeps_float32_parameters(model):
  model, variables, tokens = model
  exact, _ = logits(model, variables, tokens)
  low = clone(model, dtype=jnp.bfloat16)
  fresh = jax.eval_shape(low.init, jax.random.key(0), tokens)
  assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {
    jnp.dtype("float32")
  }
  hidden, _ = jax.eval_shape(low.apply, variables, tokens)
  rounded, _ = logits(low, variables, tokens)
  assert hidden.dtype == jnp.bfloat16 and rounded.dtype == jnp.float32
  spread = jnp.std(exact)
  assert 0 < jnp.abs(exact - rounded).mean() < 0.05 * spread


def test_logits_are_hidden_times_table_plus_bias(model):
  model, variables, tokens = model
  exact, _ = logits(model, variables, tokens)
  hidden, _ = jax.jit(model.apply)(variables, tokens)
  table, bias = model.apply(variables, method="unembedding")
  expected = hidden @ table.T + (0.0 if bias is None else bias)
  np.testing.assert_allclose(exact, expected, atol=1e-5)


def test_flops_count_every_matmul_once(model):
  """Two FLOPs per weight and token, plus attention; lookups are free.

  A matrix memory counts as in recurrent form: one write and one read per step.
  """
  model, variables, _ = model
  matmuls = 0
  for name, leaf in named_leaves(variables["params"]).items():
    table = name == "embedding/embedding" and model.tie_embeddings
    if name.endswith(("kernel", "blocks", "table")) or table:
      fraction = 1.0
      if "feed_forward" in name and leaf.ndim == 4:  # of experts
        fraction = model.stack.experts.per_token / model.stack.experts.number
      if "distance/" in name:  # once per batch, not per token
        fraction = 0.0
      matmuls += fraction * math.prod(leaf.shape)
  attention = 0
  if isinstance(model, Transformer):
    reach = model.stack.attention_window or T
    shown = sum(min(t + 0.5, reach) for t in range(T)) / T
    products = 2
    if isinstance(model, TransformerXL):
      shown, products = shown + model.memory, 3
    attention = (
      2 * products * model.stack.num_layers * round(model.width * shown)
    )
  memory = 0
  for make in getattr(model, "make_layers", ()):
    if make.func is MLSTMLayer:
      inner, heads = make.keywords["inner_width"], make.keywords["num_heads"]
      memory += 2 * heads * (inner // heads) ** 2  # to write and to read
  assert model.flops_per_token(T) == 2 * (matmuls + memory) + attention


def test_scan_over_layers_equals_unrolled_layers():
  """With the same variables, dropout, remat and a cache."""
  plain = MODELS["rotary, swiglu, rms, grouped, remat"]
  tokens = jax.random.randint(jax.random.key(1), (B, T), 0, V)
  models = [
    clone(plain, layer_execution=layer_execution)
    for layer_execution in ("scan", "unrolled")
  ]
  variables = [model.init(jax.random.key(0), tokens) for model in models]
  jax.tree.map(np.testing.assert_array_equal, *variables)

  @functools.partial(jax.jit, static_argnums=0)
  def run(model, variables):
    def loss(variables):
      rngs = {"dropout": jax.random.key(2)}
      hidden, carry = model.apply(
        variables, tokens, model.initial_carry(B, 9), rngs=rngs
      )
      return jnp.sum(hidden**2), (hidden, carry)

    return jax.grad(loss, has_aux=True)(variables)

  results = [run(model, variables[0]) for model in models]
  for a, b in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4)


def test_remat_does_not_change_gradients():
  tokens = jax.random.randint(jax.random.key(1), (B, T), 0, V)
  plain = MODELS["rotary, swiglu, rms, grouped, remat"]
  variables = plain.init(jax.random.key(0), tokens)

  def loss(variables, remat):
    model = clone(plain, remat=remat)
    return jnp.sum(logits(model, variables, tokens)[0] ** 2)

  a, b = (jax.grad(loss)(variables, remat) for remat in (True, False))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)


def test_grouped_queries_cache_fewer_keys():
  cache = MODELS["sinusoidal, one kv head, windowed"].initial_carry(B, 9)
  assert [key.shape for key in cache.keys_BGCK] == [(B, 1, 10, 2)] * 2


def test_attention_dropout_is_active_only_in_training():
  """Without a key, or at a rate near 0, the output is that of no dropout."""
  model = transformer(num_layers=1, num_kv_heads=2)
  tokens = jnp.arange(10).reshape(2, 5)
  variables = random_variables(model, tokens)
  key = {"dropout": jax.random.key(1)}

  def hidden(rate, rngs):
    dropping = clone(model, attention_dropout=rate)
    return jax.jit(dropping.apply)(variables, tokens, rngs=rngs)[0]

  plain = hidden(0.0, {})
  np.testing.assert_array_equal(hidden(0.5, {}), plain)
  np.testing.assert_allclose(hidden(1e-9, key), plain, atol=1e-5)
  assert np.abs(hidden(0.5, key) - plain).max() > 1e-2
