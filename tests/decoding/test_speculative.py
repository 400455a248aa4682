# SPDX-License-Identifier: Apache-2.0
"""Speculation writes what the target alone would."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.generate import decode, prefill
from lmjax.decoding.logits_processors import (
  Greedy,
  LogitsProcessor,
  Prompt,
  Temperature,
  TopK,
  chain,
)
from lmjax.decoding.logits_processors.logits_processor import (
  logits_processor_class,
)
from lmjax.decoding.speculative import (
  LookupState,
  ModelDraft,
  PromptLookup,
  speculate,
)
from tests.helpers.frequencies import assert_frequencies
from tests.helpers.variables import random_variables
from tests.tiny_models import recurrent, transformer

V, HASHES, FIRST, PAD, STOP, NEVER = 4, 53, 2, 0, 1, -1
TABLES = 1.5 * np.random.default_rng(0).normal(size=(2, HASHES, V))


@logits_processor_class
class Shun(LogitsProcessor):
  """Make tokens unlikely the more often they came and the rarer they were."""

  def start(self, prompt, vocab_size):
    rows = jnp.asarray(prompt.tokens_BT)
    return jax.nn.one_hot(rows[:, -1], vocab_size)

  def __call__(self, logits, state=()):
    return logits - state

  def advance(self, state, token, log_prob):
    amount = 1.5 + jnp.minimum(-log_prob, 1.0)
    return state + amount[:, None] * jax.nn.one_hot(token, state.shape[-1])


class TableModel:
  """A DecodingModel whose logits depend on all tokens, by their hash."""

  def __init__(self, table):
    self._table = jnp.array(table)

  def initial_carry(self, batch_size, capacity):
    del capacity
    return jnp.zeros(batch_size, int)

  def extend(self, tokens, hashed):
    def step(hashed, tokens):
      hashed = (7 * hashed + 3 * tokens + 1) % HASHES
      return hashed, (self._table[hashed], hashed)

    hashed, (logits, snapshots) = jax.lax.scan(step, hashed, tokens.T)
    return jnp.swapaxes(logits, 0, 1), hashed, snapshots

  def prefill(self, tokens, hashed, resets=None):
    del resets
    logits, hashed, _ = self.extend(tokens, hashed)
    return logits[:, -1], hashed

  def rollback(self, hashed, snapshot):
    del hashed
    return snapshot


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def draw(draft, rows, num_tokens, num_draft, logits_processor, limits, stop):
  """Write with TABLES[0] as the target."""
  target = TableModel(TABLES[0])
  prompt = Prompt(jnp.full((rows, 1), FIRST), jnp.zeros(rows, int))
  decode_state = prefill(target, prompt, logits_processor, 0, None)
  if draft == "lookup":
    draft, memory = (
      PromptLookup(),
      LookupState.of(prompt, num_tokens + num_draft + 1),
    )
  else:
    own = TableModel(TABLES[draft])
    _, memory, _ = own.extend(prompt.tokens_BT, jnp.zeros(rows, int))
    draft = ModelDraft(own)
  keys = jax.random.split(jax.random.key(3), rows)
  return speculate(
    target,
    decode_state,
    draft,
    memory,
    keys,
    limits,
    num_tokens,
    num_draft,
    logits_processor,
    stop_token=stop,
    pad_token=PAD,
  )


def distribution(logits_processor, num_tokens):
  """Give each text its probability, by asking for all of them."""
  target, total = TableModel(TABLES[0]), 0.0
  texts = np.array(list(itertools.product(range(V), repeat=num_tokens)))
  prompt = Prompt(jnp.full((len(texts), 1), FIRST), None)
  inputs = np.concatenate([np.full((len(texts), 1), FIRST), texts], axis=1)
  logits, _, _ = target.extend(jnp.array(inputs), jnp.zeros(len(texts), int))
  state = logits_processor.start(prompt, V)
  for place in range(num_tokens):
    log_probs = jax.nn.log_softmax(logits_processor(logits[:, place], state))
    log_probs = log_probs[jnp.arange(len(texts)), texts[:, place]]
    state = logits_processor.advance(state, texts[:, place], log_probs)
    total += np.array(log_probs)
  return np.exp(total)


@pytest.mark.parametrize("draft", [1, "lookup"])
def test_texts_have_the_distribution_of_the_target(draft):
  """Chi-square over 30,000 texts of five tokens, with filters of all kinds."""
  rows, number = 30_000, 5
  logits_processor = chain([Shun(), Temperature(0.9), TopK(3)])
  found = draw(
    draft, rows, number, 3, logits_processor, jnp.full(rows, number), NEVER
  )
  counted = np.ravel_multi_index(
    np.array(found.sampled.tokens_BN).T, [V] * number
  )
  counts = np.bincount(counted, minlength=V**number)
  expected = rows * distribution(logits_processor, number)
  assert counts[expected == 0].sum() == 0
  rare = expected < 5
  counts = np.append(counts[~rare], counts[rare].sum())
  expected = np.append(expected[~rare], expected[rare].sum())
  assert (expected > 0).sum() > 40
  assert_frequencies(counts, expected / rows)
  # A draft that proposes at random would be kept less often than one in four.
  assert np.mean(found.calls_B) < number - 1


def test_a_draft_that_is_the_target_is_always_kept():
  found = draw(0, 8, 13, 3, chain([Shun()]), jnp.full(8, 13), NEVER)
  np.testing.assert_array_equal(found.calls_B, (13 - 1) / (3 + 1))


WARM = chain([Temperature(0.5)])


def test_texts_end_where_they_should_and_change_no_others():
  limits = jnp.array([9, 1, 0, 9, 5, 9, 9, 9])
  found = draw(1, 8, 9, 2, WARM, limits, STOP)
  longer = draw(1, 8, 9, 2, WARM, jnp.full(8, 9), NEVER)
  stopped = 0
  for row, limit in enumerate(limits):
    free = np.array(longer.sampled.tokens_BN[row, :limit])
    ends = np.flatnonzero(free == STOP)
    end = ends[0] + 1 if len(ends) else int(limit)
    assert found.count_B[row] == end
    assert bool(found.done_B[row]) == bool(len(ends))
    expected = [*free[:end], *[PAD] * (9 - end)]
    assert found.sampled.tokens_BN[row].tolist() == expected
    stopped += len(ends) > 0
  assert 0 < stopped < 8


def test_log_probs_are_those_of_the_target_before_filters():
  found = draw(1, 8, 9, 2, WARM, jnp.full(8, 9), NEVER)
  tokens = np.array(found.sampled.tokens_BN)
  inputs = np.concatenate([np.full((8, 1), FIRST), tokens], axis=1)
  logits, _, _ = TableModel(TABLES[0]).extend(
    jnp.array(inputs), jnp.zeros(8, int)
  )
  log_probs = jax.nn.log_softmax(logits)[:, :-1]
  expected = np.take_along_axis(np.array(log_probs), tokens[..., None], 2)
  np.testing.assert_allclose(
    found.sampled.log_probs_BN, expected[..., 0], rtol=1e-4
  )


def test_lookup_copies_what_followed_the_longest_match():
  def propose(text, start=0, number=4):
    prompt = Prompt(jnp.array([text[:-1]]), jnp.array([start]))
    keys = jnp.zeros((1, number + 1))
    memory, last = LookupState.of(prompt, number + 1), jnp.array(text[-1:])
    found = PromptLookup().propose(memory, last, keys, None, ())
    return found.tokens_BO[0].tolist()

  assert propose([1, 2, 3, 9, 7, 2, 3, 8, 6, 1, 2, 3]) == [9, 7, 2, 3]
  assert propose([5, 2, 3, 9, 7, 2, 3, 8, 6, 1, 2, 3]) == [8, 6, 1, 2]
  assert propose([1, 2, 3, 4, 3]) == [4, 3, 4, 3]  # in a circle
  assert propose([1, 2, 3, 4]) == [4, 4, 4, 4]  # no match
  assert propose([0, 0, 7, 0, 4], start=2) == [4, 4, 4, 4]
  assert propose([7, 0, 0, 4, 7], start=1) == [7, 7, 7, 7]  # it is padding


CONTEXT, SIZE = 64, 11
FAMILIES = {
  "lstm": recurrent("lstm", SIZE),
  "transformer": transformer(
    SIZE, positions="learned", max_context=CONTEXT, num_kv_heads=2
  ),
}


@pytest.mark.parametrize(
  ("target", "draft"),
  [("transformer", "lstm"), ("lstm", "transformer"), ("transformer", "lookup")],
)
def test_greedy_speculation_writes_what_greedy_search_does(target, draft):
  """Of two families and prompts of different length, token for token."""
  number, num_draft = 24, 3
  models = {
    name: (
      FAMILIES[name],
      random_variables(FAMILIES[name], jnp.zeros((1, 1), int)),
    )
    for name in {target, draft} - {"lookup"}
  }
  tokens = jnp.array([[1, 2, 3, 4, 5], [PAD, PAD, 7, 8, 9], [PAD] * 4 + [6]])
  prompt = Prompt(tokens, jnp.array([0, 2, 4]))
  keys = jax.random.split(jax.random.key(0), 3)
  limits, logits_processor = jnp.array([number, number - 5, number]), Greedy()
  fixed = dict(pad_token=PAD)

  capacity = 5 + number + num_draft + 1

  def bound(name):
    model, variables = models[name]
    return DecodingModel(model, variables)

  @jax.jit
  def plain():
    model = bound(target)
    decode_state = prefill(model, prompt, logits_processor, capacity, None)
    how = dict(stop_tokens=(NEVER,), max_context=None, **fixed)
    return decode(
      model, decode_state, keys, limits, number, logits_processor, **how
    )[0]

  @jax.jit
  def speculative():
    model = bound(target)
    decode_state = prefill(model, prompt, logits_processor, capacity, None)
    if draft == "lookup":
      proposer = PromptLookup()
      state = LookupState.of(prompt, number + num_draft + 1)
    else:
      proposer = ModelDraft(bound(draft))
      state = prefill(
        proposer.model, prompt, logits_processor, capacity, None
      ).carry
    return speculate(
      model,
      decode_state,
      proposer,
      state,
      keys,
      limits,
      number,
      num_draft,
      logits_processor,
      stop_token=NEVER,
      **fixed,
    )

  expected, found = plain(), speculative()
  np.testing.assert_array_equal(expected.tokens_BN, found.sampled.tokens_BN)
  np.testing.assert_allclose(
    expected.log_probs_BN, found.sampled.log_probs_BN, atol=1e-4
  )
  assert (found.calls_B < found.count_B).any()
