# SPDX-License-Identifier: Apache-2.0
"""Encoders, and decoders with a bidirectional prefix (prefix LM)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.errors import UsageError
from tests.helpers.variables import random_variables
from tests.tiny_models import VOCAB_SIZE, encoder, transformer

B, T, V = 2, 7, VOCAB_SIZE
TOKENS = jax.random.randint(jax.random.key(1), (B, T), 0, V)
DECODER = transformer(num_layers=2, num_kv_heads=2, positions="alibi")
PREFIX = jnp.arange(T) < 4


@functools.partial(jax.jit, static_argnums=0)
def hidden(model, variables, tokens, *arguments, **options):
  return model.apply(variables, tokens, *arguments, **options)


@pytest.fixture(scope="module", params=["learned", "relative"])
def reader(request):
  """An encoder and its variables."""
  order = "post" if request.param == "learned" else "pre"
  model = encoder(num_layers=2, positions=request.param, norm_position=order)
  return model, random_variables(model, TOKENS)


@pytest.fixture(scope="module")
def prefixed():
  """A decoder's variables."""
  return random_variables(DECODER, TOKENS)


def reach(model, variables, t, **options):
  """Return which tokens of the first row the hidden vector at t depends on."""
  table = variables["params"]["embedding"]["embedding"]
  wider = model.clone(vocab_size=V + T)

  @jax.jit
  @jax.grad
  def gradient(offsets_TE, t):
    own = jnp.concatenate([table, table[TOKENS[0]] + offsets_TE])
    params = {**variables["params"], "embedding": {"embedding": own}}
    tokens = V + jnp.arange(T)[None]
    out, _ = wider.apply({"params": params}, tokens, **options)
    return jnp.sum(out[0, t] ** 2)

  zeros = jnp.zeros((T, table.shape[1]))
  return [list(np.abs(gradient(zeros, i)).sum(axis=1) > 0) for i in t]


def test_every_token_depends_on_its_whole_document(reader):
  model, variables = reader
  assert reach(model, variables, range(T)) == [[True] * T] * T
  resets = jnp.zeros((1, T), bool).at[0, 4].set(True)
  first, last = reach(model, variables, (0, 6), resets_BT=resets)
  assert first == [True] * 4 + [False] * 3
  assert last == [False] * 4 + [True] * 3


def test_padding_changes_nothing(reader):
  model, variables = reader
  mask = jnp.arange(T)[None] < jnp.array([[T], [4]])
  padded, _ = hidden(model, variables, TOKENS, mask_BT=mask)
  whole, _ = hidden(model, variables, TOKENS)
  alone, _ = hidden(model, variables, TOKENS[1:, :4])
  np.testing.assert_allclose(padded[0], whole[0], atol=1e-5)
  np.testing.assert_allclose(padded[1, :4], alone[0], atol=1e-5)
  assert jnp.abs(whole[1, :4] - alone[0]).max() > 1e-2


def test_packed_documents_equal_separate_documents(reader):
  model, variables = reader
  resets = jnp.zeros((B, T), bool).at[:, 3].set(True)
  packed, _ = hidden(model, variables, TOKENS, resets_BT=resets)
  for start, stop in ((0, 3), (3, 7)):
    alone, _ = hidden(model, variables, TOKENS[:, start:stop])
    np.testing.assert_allclose(packed[:, start:stop], alone, atol=1e-5)


def test_encoder_has_no_carry(reader):
  model, _ = reader
  with pytest.raises(UsageError, match="cannot generate text; choose"):
    model.initial_carry(B, 9)


def test_prefix_is_bidirectional_and_the_rest_is_causal(prefixed):
  found = reach(DECODER, prefixed, range(T), bidirectional_BT=PREFIX[None])
  expected = [[s <= t or (t < 4 and s < 4) for s in range(T)] for t in range(T)]
  assert found == expected


def test_prefixes_of_packed_documents_are_independent(prefixed):
  """Two packed documents, each with a prefix."""
  resets = jnp.zeros((1, T), bool).at[0, 2].set(True)
  both = dict(resets_BT=resets, bidirectional_BT=PREFIX[None])
  second = reach(DECODER, prefixed, (1, 2, 4), **both)
  assert second[0] == [True] * 2 + [False] * 5
  assert second[1] == [False] * 2 + [True] * 2 + [False] * 3
  assert second[2] == [False] * 2 + [True] * 3 + [False] * 2


@pytest.mark.parametrize("sizes", [[4, 1, 1, 1], [6, 1], [5, 2]])
def test_incremental_after_a_prefix_equals_full_forward_pass(prefixed, sizes):
  prefix = jnp.broadcast_to(PREFIX, (B, T))
  full, _ = hidden(DECODER, prefixed, TOKENS, bidirectional_BT=prefix)
  carry, chunks, start = DECODER.initial_carry(B, 9), [], 0
  for size in sizes:
    now = slice(start, start + size)
    more = dict(bidirectional_BT=prefix[:, now]) if start == 0 else {}
    out, carry = hidden(DECODER, prefixed, TOKENS[:, now], carry, **more)
    chunks.append(out)
    start += size
  np.testing.assert_allclose(full, jnp.concatenate(chunks, 1), atol=2e-5)


def test_attention_weights_of_every_layer_are_sown(prefixed):
  carry = DECODER.initial_carry(B, 8)
  _, carry = hidden(DECODER, prefixed, TOKENS[:, :4], carry)
  plain, _ = hidden(DECODER, prefixed, TOKENS[:, 4:], carry)
  (shown, _), seen = jax.jit(
    functools.partial(DECODER.apply, mutable=["intermediates"])
  )(prefixed, TOKENS[:, 4:], carry)
  np.testing.assert_allclose(shown, plain, atol=1e-6)
  (weights,) = seen["intermediates"]["blocks"]["attention"]["weights"]
  assert weights.shape == (2, B, 4, 3, 9 + 3)  # [L, B, H, T, slots + T]
  np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
  # Of nine slots, in text order, the first five are empty.
  assert not weights[..., :5].any() and (weights[..., 5:10] > 0).all()
  assert not weights[..., 0, 10:].any() and (weights[..., 2, 10:] > 0).all()


def test_sown_weights_of_a_full_cache_are_in_text_order():
  """The ring buffer itself is not in text order once it wraps around."""
  model = transformer(num_layers=1, positions="rotary", max_context=4)
  variables = random_variables(model, TOKENS)
  carry = model.initial_carry(B, 4)
  for chunk in (TOKENS[:, :3], TOKENS[:, 3:5]):  # wraps around
    _, carry = hidden(model, variables, chunk, carry)
  apply = functools.partial(model.apply, mutable=["intermediates"])
  _, seen = jax.jit(apply)(variables, TOKENS[:, 5:], carry)
  (weights,) = seen["intermediates"]["blocks"]["attention"]["weights"]
  _, seen = jax.jit(apply)(variables, TOKENS)
  (whole,) = seen["intermediates"]["blocks"]["attention"]["weights"]
  new = T - 5
  expected = whole[..., 5:6, 1:]  # four old ones and itself
  expected /= expected.sum(-1, keepdims=True)
  shown = weights[..., :1, -(4 + new) :]
  np.testing.assert_allclose(shown, expected, atol=1e-5)
  assert not weights[..., : -(4 + new)].any()
