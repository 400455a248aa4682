# SPDX-License-Identifier: Apache-2.0
"""Groups, early stopping, logits processors and prompts of beam search."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.decoding.beam import BeamSearch, length_normalizer, repeat
from lmjax.decoding.generate import prefill
from lmjax.decoding.logits_processors import (
  LogitsProcessor,
  Prompt,
  SuppressTokens,
  chain,
)
from lmjax.decoding.logits_processors.logits_processor import (
  logits_processor_class,
)

STOP, PAD, FIRST, NEVER = 1, 0, 2, 3
V, T, B, N, HASHES = 6, 5, 30, 4, 97
TABLES = 1.5 * np.random.default_rng(0).normal(size=(B, HASHES, V))
ALPHA = 0.6


@logits_processor_class
class Once(LogitsProcessor):
  """Write each token once; the memory is which ones were written."""

  def start(self, prompt, vocab_size):
    rows = len(prompt.tokens_BT)
    return jnp.zeros((rows, vocab_size), bool).at[:, FIRST].set(True)

  def __call__(self, logits, state=()):
    return jnp.where(state, -jnp.inf, logits)

  def advance(self, state, token, log_prob):
    return state.at[jnp.arange(len(token)), token].set(True)


def step(tables, tokens, hashed):
  hashed = (7 * hashed + 3 * tokens + 1) % HASHES
  return tables[jnp.arange(len(hashed)), hashed], hashed


class TableModel:
  """A DecodingModel whose logits depend on all tokens, by their hash."""

  def initial_carry(self, batch_size, capacity):
    del capacity
    return jnp.zeros(batch_size, int)

  def prefill(self, tokens, hashed, resets=None):
    del resets
    return step(jnp.array(TABLES), tokens[:, -1], hashed)


@functools.partial(
  jax.jit, static_argnames=("groups", "early", "banned", "once", "from_prompt")
)
def search(groups, diversity, early, banned=(), once=False, from_prompt=False):
  logits_processor = chain(
    [SuppressTokens(banned), *([Once()] if once else [])]
  )
  how = BeamSearch(
    num_tokens=T,
    beam_size=N,
    num_return_sequences=N,
    length_penalty=ALPHA,
    num_groups=groups,
    diversity_penalty=diversity,
    early_stopping=early,
    stop_token=STOP,
    pad_token=PAD,
    logits_processor=logits_processor,
  )
  own = functools.partial(step, repeat(jnp.array(TABLES), N))
  if from_prompt:
    prompt = Prompt(jnp.full((B, 1), FIRST), jnp.zeros(B, int))
    return how.continue_from(
      own, prefill(TableModel(), prompt, logits_processor, 0, None)
    )
  prompt = Prompt(jnp.full((B * N, 1), FIRST), None)
  state = logits_processor.start(prompt, V)
  return how(own, jnp.zeros(B * N, int), jnp.full(B, FIRST), state)


def by_hand(table, groups, diversity, early, banned=(), once=False):
  """Search as the papers say, a text at a time."""
  size = N // groups
  open_, ended = (
    [[(0.0, ())] for _ in range(groups)],
    [[] for _ in range(groups)],
  )
  done = [False] * groups

  def next_log_probs(tokens):
    hashed = 0
    for token in (FIRST, *tokens):
      hashed = (7 * hashed + 3 * token + 1) % HASHES
    row = table[hashed]
    scores = row - np.log(np.exp(row).sum())
    scores[list(banned)] = -np.inf
    if once:
      scores[[FIRST, *tokens]] = -np.inf
    return scores

  for length in range(1, T + 1):
    counts = np.zeros(V)
    for g in range(groups):
      if done[g]:
        continue
      ways = []
      for total, tokens in open_[g]:
        scores = next_log_probs(tokens)
        for v in range(V):
          if scores[v] > -np.inf:
            rank = total + scores[v] - diversity * counts[v]
            ways.append((rank, total + scores[v], (*tokens, v)))
      ways.sort(reverse=True)
      for _, total, tokens in ways[:size]:
        if tokens[-1] == STOP:
          ended[g].append((total / length_normalizer(length, ALPHA), tokens))
      ended[g] = sorted(ended[g], reverse=True)[:size]
      open_[g] = [(x, t) for _, x, t in ways if t[-1] != STOP][:size]
      best = max([x for x, _ in open_[g]], default=-np.inf)
      if len(ended[g]) == size:
        worst = ended[g][-1][0]
        bound = T if early == "never" else length
        done[g] = (
          early is True or best / length_normalizer(bound, ALPHA) <= worst
        )
      if done[g]:
        open_[g] = []
      for _, tokens in open_[g]:
        counts[tokens[-1]] += 1
  cut = [
    (x / length_normalizer(T, ALPHA), t) for group in open_ for x, t in group
  ]
  ended = [text for group in ended for text in group]
  return (sorted(ended, reverse=True) + sorted(cut, reverse=True))[:N]


def check(found, **options):
  for row in range(B):
    wanted = by_hand(TABLES[row], **options)
    for place, (score, tokens) in enumerate(wanted):
      padded = [*tokens, *[PAD] * (T - len(tokens))]
      assert found.tokens_BNT[row, place].tolist() == padded
      np.testing.assert_allclose(
        found.scores_BN[row, place], score, rtol=1e-4, atol=1e-5
      )
    assert np.isneginf(found.scores_BN[row, len(wanted) :]).all()


@pytest.mark.parametrize(
  ("groups", "diversity", "early"),
  [
    (2, 0.9, True),
    (4, 0.9, True),
    (1, 0.0, False),
    (1, 0.0, "never"),
  ],
)
def test_groups_and_early_ends_are_those_of_the_papers(
  groups, diversity, early
):
  options = dict(groups=groups, diversity=diversity, early=early)
  check(search(**options), **options)


def test_groups_find_texts_that_differ_more():
  alike, differ = (
    search(groups=4, diversity=x, early=True).tokens_BNT[..., 0]
    for x in (0.0, 5.0)
  )
  number = [np.mean([len(set(r.tolist())) for r in x]) for x in (alike, differ)]
  assert number[0] == 1 and number[1] > 2.5


ONCE = dict(groups=2, diversity=0.5, early=False, banned=(PAD,), once=True)


def test_filters_apply_and_their_memory_goes_with_the_hypotheses():
  check(search(**ONCE), **ONCE)


def test_from_prompt_a_prompt_is_from_prompt_its_last_token():
  one, other = search(**ONCE), search(**ONCE, from_prompt=True)
  np.testing.assert_array_equal(one.tokens_BNT, other.tokens_BNT)
  np.testing.assert_allclose(one.scores_BN, other.scores_BN, rtol=1e-6)
