# SPDX-License-Identifier: Apache-2.0
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.decoding.beam import (
  BeamSearch,
  greedy_search,
  length_normalizer,
  repeat,
)

STOP, PAD, FIRST = 1, 0, 2
V, T, B = 4, 4, 3
# A text's log-probabilities depend on all of its tokens, by what they hash to.
HASHES, SPREAD = 97, 2.5
TABLES = SPREAD * np.random.default_rng(0).normal(size=(B, HASHES, V))


def step(tables_MHV, tokens_M, hash_M):
  hash_M = (7 * hash_M + 3 * tokens_M + 1) % HASHES
  return tables_MHV[jnp.arange(len(hash_M)), hash_M], hash_M


@functools.partial(jax.jit, static_argnums=(1, 3, 4))
def search(tables, size, alpha=0.0, num_return_sequences=1, num_tokens=T):
  number = len(tables)
  first = jnp.full(number, FIRST)
  fixed = dict(length_penalty=alpha, stop_token=STOP, pad_token=PAD)
  if not size:
    own = functools.partial(step, tables)
    carry = jnp.zeros(number, int)
    return greedy_search(own, carry, first, num_tokens, **fixed)
  own = functools.partial(step, repeat(tables, size))
  carry = jnp.zeros(number * size, int)
  how = dict(
    num_tokens=num_tokens,
    beam_size=size,
    num_return_sequences=num_return_sequences,
  )
  return BeamSearch(**how, **fixed)(own, carry, first)


def log_probs(table_HV, tokens):
  hashed, last, total = 0, FIRST, 0.0
  for token in tokens:
    hashed = (7 * hashed + 3 * last + 1) % HASHES
    row = table_HV[hashed]
    total += row[token] - np.log(np.exp(row).sum())
    last = token
  return total


def exhaustive(table_HV, alpha):
  """List all texts that end, the best first."""
  others = [token for token in range(V) if token != STOP]
  found = []
  for length in range(T):
    for tokens in itertools.product(others, repeat=length):
      tokens = (*tokens, STOP)
      score = log_probs(table_HV, tokens) / length_normalizer(
        len(tokens), alpha
      )
      found.append((score, tokens + (PAD,) * (T - len(tokens))))
  return sorted(found, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_that_holds_all_texts_is_exhaustive(alpha):
  number = 5
  found = search(TABLES, V**T, alpha, number)
  for row in range(B):
    wanted = exhaustive(TABLES[row], alpha)[:number]
    np.testing.assert_allclose(
      found.scores_BN[row], [score for score, _ in wanted], rtol=1e-4
    )
    assert found.tokens_BNT[row].tolist() == [list(t) for _, t in wanted]


def test_a_beam_of_one_is_greedy():
  tables = SPREAD * np.random.default_rng(1).normal(size=(40, HASHES, V))
  for alpha in (0.0, 1.0):
    greedy = search(tables, 0, alpha, 1, 9)
    beam = search(tables, 1, alpha, 1, 9)
    np.testing.assert_array_equal(greedy.tokens_BNT, beam.tokens_BNT)
    np.testing.assert_allclose(greedy.scores_BN, beam.scores_BN, rtol=1e-4)
  # By hand: the most probable token each time, and nothing behind the end.
  for row, table in enumerate(tables):
    hashed, last, tokens = 0, FIRST, []
    while len(tokens) < 9 and last != STOP:
      hashed = (7 * hashed + 3 * last + 1) % HASHES
      last = int(table[hashed].argmax())
      tokens.append(last)
    assert greedy.tokens_BNT[row, 0].tolist() == tokens + [PAD] * (
      9 - len(tokens)
    )
    score = log_probs(table, tokens) / length_normalizer(len(tokens), 1.0)
    np.testing.assert_allclose(greedy.scores_BN[row, 0], score, rtol=1e-4)


def test_scores_are_those_of_the_texts_and_descend():
  found = search(TABLES, 3, 0.6, 3)
  for row in range(B):
    scores = np.array(found.scores_BN[row])
    ended = (found.tokens_BNT[row] == STOP).any(axis=1)
    assert np.all(np.diff(scores[ended]) <= 0)
    for score, tokens in zip(scores, found.tokens_BNT[row], strict=True):
      tokens = tokens.tolist()
      if STOP in tokens:
        tokens = tokens[: tokens.index(STOP) + 1]
      own = log_probs(TABLES[row], tokens) / length_normalizer(len(tokens), 0.6)
      np.testing.assert_allclose(score, own, rtol=1e-4)


def test_wider_beams_find_no_worse_texts_here():
  tables = SPREAD * np.random.default_rng(2).normal(size=(40, HASHES, V))
  narrow, wide = search(tables, 2), search(tables, 16)
  ends = (narrow.tokens_BNT == STOP).any(axis=-1)
  better = (wide.scores_BN >= narrow.scores_BN - 1e-5)[ends]
  assert better.mean() > 0.9 and ends.any()
  assert (wide.scores_BN > narrow.scores_BN + 1e-3).any()


@pytest.mark.parametrize("size", [0, 3])
def test_rows_do_not_depend_on_one_another(size):
  together = search(TABLES, size, 0.6)
  for row in range(B):
    alone = search(TABLES[row : row + 1], size, 0.6)
    np.testing.assert_array_equal(together.tokens_BNT[row], alone.tokens_BNT[0])
    np.testing.assert_allclose(
      together.scores_BN[row], alone.scores_BN[0], rtol=1e-5
    )


def test_a_search_stops_when_no_open_text_can_win():
  """Two ways to stop early: all that is wanted is found, or all is full."""
  steps = []

  def run(stop_logit, size, num_return_sequences):
    steps.clear()
    row = jnp.zeros(V).at[STOP].set(stop_logit)

    def count(tokens_M, carry):
      jax.debug.callback(lambda: steps.append(1))
      return jnp.broadcast_to(row, (len(tokens_M), V)), carry

    fixed = dict(
      num_return_sequences=num_return_sequences, stop_token=STOP, pad_token=PAD
    )
    search_ = BeamSearch(num_tokens=9, beam_size=size, **fixed)
    found = search_(count, (), jnp.array([FIRST]))
    jax.block_until_ready(found)
    jax.effects_barrier()
    return len(steps)

  assert run(9.0, 3, 1) == 1
  assert 1 < run(9.0, 3, 3) < 9
  assert run(-9.0, 3, 1) == 9


def test_texts_that_do_not_end_come_last():
  tables = np.full((1, HASHES, V), -9.0)
  tables[..., STOP], tables[..., 3] = 0.5, 1.0
  found = search(tables, 3, 0.0, 3, 2)
  assert found.tokens_BNT[0].tolist() == [[STOP, PAD], [3, STOP], [3, 3]]
  assert found.scores_BN[0, 2] > found.scores_BN[0, 1]
