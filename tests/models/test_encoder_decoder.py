# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.errors import UsageError
from tests.helpers.variables import random_variables
from tests.tiny_models import VOCAB_SIZE, encoder_decoder

B, T, S, V = 2, 7, 5, VOCAB_SIZE
MODEL = encoder_decoder(
  num_layers=3, num_kv_heads=2, positions="relative", qk_norm="rms"
)
KEYS = jax.random.split(jax.random.key(1))
TOKENS = jax.random.randint(KEYS[0], (B, T), 0, V)
SOURCES = jax.random.randint(KEYS[1], (B, S), 0, V)
MASK = jnp.arange(S)[None] < jnp.array([[S], [3]])


@functools.partial(jax.jit, static_argnums=0)
def encode(model, variables, sources, mask=None):
  return model.apply(variables, sources, mask, method="encode")


@functools.partial(jax.jit, static_argnums=0)
def hidden(model, variables, tokens, carry=None, resets=None, **options):
  return model.apply(variables, tokens, carry, resets, **options)


@pytest.fixture(scope="module")
def variables():
  return random_variables(MODEL, TOKENS)


@pytest.fixture(scope="module")
def memory(variables):
  return encode(MODEL, variables, SOURCES, MASK)


def test_init_with_only_targets_creates_all_parameters():
  key = jax.random.key(0)
  plain = jax.eval_shape(MODEL.init, key, TOKENS)
  given = jax.eval_shape(
    functools.partial(MODEL.init, sources_BS=SOURCES), key, TOKENS
  )
  assert plain == given
  encoder = plain["params"]["encoder"]["blocks"]
  decoder = plain["params"]["blocks"]
  assert decoder.keys() - encoder.keys() == {
    "cross_attention",
    "cross_attention_norm",
  }


def test_sources_equal_their_encoded_memory(variables, memory):
  ours, _ = hidden(MODEL, variables, TOKENS, memory=memory)
  theirs, _ = hidden(
    MODEL, variables, TOKENS, sources_BS=SOURCES, source_mask_BS=MASK
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_padding_of_sources_changes_nothing(variables, memory):
  padded, _ = hidden(MODEL, variables, TOKENS, memory=memory)
  for row, size in ((0, 5), (1, 3)):
    short = encode(MODEL, variables, SOURCES[row : row + 1, :size])
    now = TOKENS[row : row + 1]
    alone, _ = hidden(MODEL, variables, now, memory=short)
    np.testing.assert_allclose(padded[row], alone[0], atol=2e-5)


def test_every_target_depends_on_the_whole_source(variables):
  table = variables["params"]["embedding"]["embedding"]
  wider = MODEL.clone(vocab_size=V + S)

  @jax.jit
  @jax.grad
  def gradient(offsets_SE, t):
    own = jnp.concatenate([table, table[SOURCES[0]] + offsets_SE])
    params = {**variables["params"], "embedding": {"embedding": own}}
    sources = V + jnp.arange(S)[None]
    out, _ = wider.apply({"params": params}, TOKENS[:1], sources_BS=sources)
    return jnp.sum(out[0, t] ** 2)

  for t in (0, T - 1):
    reached = np.abs(gradient(jnp.zeros((S, table.shape[1])), t)).sum(axis=1)
    assert np.all(reached > 0)


def test_incremental_equals_full_forward_pass(variables, memory):
  full, _ = hidden(MODEL, variables, TOKENS, memory=memory)
  decoder, laid_out = MODEL.for_decoding(variables, B)
  for model, own in ((MODEL, variables), (decoder, laid_out)):
    carry, pieces = model.initial_carry(B, 9), []
    for start, stop in ((0, 4), (4, 5), (5, 6), (6, 7)):
      now = TOKENS[:, start:stop]
      out, carry = hidden(model, own, now, carry, memory=memory)
      pieces.append(out)
    np.testing.assert_allclose(full, jnp.concatenate(pieces, 1), atol=2e-5)
  again = encode(decoder, laid_out, SOURCES, MASK)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), memory, again
  )


def test_every_leaf_of_a_memory_has_its_batch_axis_first(variables, memory):
  ours, _ = hidden(MODEL, variables, TOKENS, memory=memory)
  swapped = jax.tree.map(lambda leaf: leaf[::-1], memory)
  theirs, _ = hidden(MODEL, variables, TOKENS[::-1], memory=swapped)
  np.testing.assert_allclose(ours[::-1], theirs, atol=1e-5)


def test_normalized_memory_keys_ignore_the_scale_of_kernels(variables):
  """QK norm removes the scale of keys."""
  params = dict(variables["params"])
  params["memory_key"] = jax.tree.map(lambda x: 9 * x, params["memory_key"])
  ours = encode(MODEL, {**variables, "params": params}, SOURCES, MASK)
  plain = encode(MODEL, variables, SOURCES, MASK)
  for key, same in zip(ours.keys_BGSK, plain.keys_BGSK, strict=True):
    np.testing.assert_allclose(key, same, atol=1e-4)


def test_missing_source_is_an_error(variables):
  with pytest.raises(UsageError, match="needs source sequences; choose"):
    MODEL.apply(variables, TOKENS)
