# SPDX-License-Identifier: Apache-2.0
"""The neural cache: its formula, and the properties of every model."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.errors import UsageError
from lmjax.models import neural_cache
from lmjax.models.language_model import LanguageModel
from lmjax.models.neural_cache import CacheOptions, NeuralCache
from tests.helpers.log_probs import full_logits
from tests.tiny_models import VOCAB_SIZE, recurrent, transformer

B, T, V, SIZE, THETA, WEIGHT = 2, 9, VOCAB_SIZE, 4, 0.7, 0.3


class Unigram(LanguageModel):
  """Constant logits; `hidden` has only integers, as in n-gram models."""

  vocab_size: int = V
  max_context = None
  dtype = jnp.float32

  @nn.compact
  def __call__(self, tokens_BT, carry=None, resets_BT=None):
    return tokens_BT, carry

  def logits(self, hidden_BT):
    return jnp.broadcast_to(jnp.arange(V) / V, (*hidden_BT.shape, V))

  @nn.nowrap
  def initial_carry(self, batch_size, capacity):
    return ()

  @nn.nowrap
  def for_decoding(self, variables, batch_size):
    return self, variables


MODELS = {
  "lstm": recurrent("lstm"),
  "transformer": transformer(num_layers=1),
  "unigram": Unigram(),
}


@pytest.fixture(scope="module", params=MODELS)
def example(request):
  """A model with a cache, its variables, tokens, resets and log-probabilities.

  Weights are large enough for hidden vectors to differ, and few tokens are
  used, so that some come again.
  """
  inner = MODELS[request.param]
  model = NeuralCache(inner, SIZE, THETA, WEIGHT)
  tokens = jax.random.randint(jax.random.key(1), (B, T), 0, 4)
  resets = jnp.zeros((B, T), bool).at[0, 3].set(True).at[1, 7].set(True)
  variables = inner.init(jax.random.key(0), tokens)
  keys = iter(jax.random.split(jax.random.key(2), 99))
  variables = jax.tree.map(
    lambda leaf: leaf + 0.5 * jax.random.normal(next(keys), leaf.shape),
    variables,
  )
  return model, variables, tokens, resets


def by_the_formula(model, variables, tokens, resets):
  """Grave et al. 2017, equations 2 and 3, position by position."""
  inner = model.model
  scores, _ = full_logits(inner, variables, tokens, None, resets)
  hidden = np.array(inner.apply(variables, tokens, None, resets)[0])
  expected = np.array(jax.nn.softmax(scores))
  for row in range(B):
    start = 0
    for t in range(T):
      start = t if resets[row, t] else start
      seen = range(max(start, t - SIZE), t)  # i, whose next token is known
      if not seen:
        continue
      cache = np.zeros(V)
      for i in seen:
        similarity = 0.0
        if hidden.dtype.kind == "f":
          similarity = THETA * float(hidden[row, t] @ hidden[row, i])
        cache[tokens[row, i + 1]] += np.exp(similarity)
      expected[row, t] *= 1 - WEIGHT
      expected[row, t] += WEIGHT * cache / cache.sum()
  return np.log(expected)


def test_probabilities_equal_the_formula_of_the_paper(example):
  model, variables, tokens, resets = example
  found, _ = full_logits(model, variables, tokens, None, resets)
  expected = by_the_formula(model, variables, tokens, resets)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  np.testing.assert_allclose(jnp.exp(found).sum(-1), 1.0, atol=1e-5)


def test_incremental_and_decoding_layout_equal_full_pass(example):
  model, variables, tokens, resets = example
  full, _ = full_logits(model, variables, tokens, None, resets)
  for rows, sizes in ((1, [1] * 9), (B, [3, 1, 5])):
    decoder, laid_out = model.for_decoding(variables, rows)
    carry, chunks, start = decoder.initial_carry(rows, T), [], 0
    for size in sizes:
      chunk = slice(start, start + size)
      out, carry = full_logits(
        decoder, laid_out, tokens[:rows, chunk], carry, resets[:rows, chunk]
      )
      chunks.append(out)
      start += size
    together = jnp.concatenate(chunks, 1)
    np.testing.assert_allclose(full[:rows], together, atol=2e-5)


def test_every_leaf_of_a_carry_has_its_batch_axis_first(example):
  model, variables, tokens, resets = example
  carry = model.initial_carry(B, T)
  _, carry = full_logits(model, variables, tokens, carry, resets)
  swapped = jax.tree.map(lambda leaf: leaf[::-1], carry)
  ours, _ = full_logits(model, variables, tokens, carry, resets)
  theirs, _ = full_logits(model, variables, tokens[::-1], swapped, resets[::-1])
  np.testing.assert_allclose(ours[::-1], theirs, atol=1e-5)


def test_cross_entropy_matches_the_log_probabilities(example, monkeypatch):
  """Also in chunks of two positions, of which the last is padded."""
  monkeypatch.setattr(neural_cache, "_MAX_ELEMENTS", 2 * B * V)
  model, variables, tokens, _ = example
  targets = jnp.roll(tokens, -1, axis=1)
  weights = jax.random.uniform(jax.random.key(3), (B, T))
  hidden, _ = model.apply(variables, tokens)
  arguments = (variables, hidden, targets, weights)
  sums = jax.jit(functools.partial(model.apply, method="cross_entropy"))(
    *arguments
  )
  scores, _ = full_logits(model, variables, tokens)
  target = jnp.take_along_axis(scores, targets[..., None], -1)[..., 0]
  np.testing.assert_allclose(sums.nats, -(target * weights).sum(), rtol=1e-5)
  best = weights * (scores.argmax(-1) == targets)
  np.testing.assert_allclose(sums.correct, best.sum(), rtol=1e-5)
  assert sums.loss == sums.nats


def test_cache_continues_when_the_model_starts_anew():
  """The model starts the second sequence from an empty carry."""
  inner = MODELS["transformer"]
  model = NeuralCache(inner, 2 * T, THETA, WEIGHT, carries_model=False)
  tokens = jax.random.randint(jax.random.key(1), (B, 2 * T), 0, 4)
  variables = inner.init(jax.random.key(0), tokens)
  _, carry = full_logits(
    model, variables, tokens[:, :T], model.initial_carry(B, 0)
  )
  mixed, _ = full_logits(model, variables, tokens[:, T:], carry)
  alone, _ = full_logits(inner, variables, tokens[:, T:])
  cache = np.exp(mixed) - (1 - WEIGHT) * np.array(jax.nn.softmax(alone))
  counted = set(np.flatnonzero(cache[0, 0] > 1e-6))
  assert counted == set(np.array(tokens[0, 1 : T + 1]))


@pytest.mark.parametrize(
  ("numbers", "name"),
  [
    ((0, 1.0, 0.1), "cache_size=0"),
    ((10**11, 1.0, 0.1), "cache_size=1"),
    ((9, -1.0, 0.1), "cache_theta=-1"),
    ((9, float("nan"), 0.1), "cache_theta=nan"),
    ((9, 1.0, float("nan")), "cache_lambda=nan"),
  ],
)
def test_options_out_of_range_are_rejected(numbers, name):
  with pytest.raises(UsageError, match=f"^{name}.* must be at "):
    CacheOptions(*numbers)
