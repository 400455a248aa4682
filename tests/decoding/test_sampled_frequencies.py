# SPDX-License-Identifier: Apache-2.0
"""What each sampler draws, against its distribution as NumPy computes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.decoding.logits_processors import (
  BadWords,
  CountPenalty,
  Epsilon,
  Eta,
  ForcedPrefix,
  Greedy,
  LogitBias,
  MinLength,
  MinP,
  Mirostat,
  NoRepeatNgrams,
  Prompt,
  RepetitionPenalty,
  SuppressTokens,
  Temperature,
  TopK,
  TopP,
  Typical,
  chain,
)
from lmjax.decoding.multinomial import sample
from tests.helpers.frequencies import assert_frequencies

V, NUMBER = 11, 40_000
LOGITS = np.array([1.1, -0.7, 0.4, 1.9, -1.6, 0.0, 0.9, -0.2, -1.1, 1.5, -2.4])
TEXT, DRAWN = [3, 9, 2, 3], [9, 5, 3]  # the prompt, and what followed
BIAS = np.linspace(-1, 1, V)


def softmax(logits):
  weights = np.exp(logits - logits.max())
  return weights / weights.sum()


def of_those(kept):
  return softmax(np.where(kept, LOGITS, -np.inf))


def without(*tokens):
  return of_those(~np.isin(np.arange(V), tokens))


def fewest(order, mass):
  """Take tokens in an order until they have a mass."""
  kept, total = np.zeros(V, bool), 0.0
  for token in order:
    if total < mass:
      kept[token], total = True, total + P[token]
  return of_those(kept)


P = softmax(LOGITS)
ENTROPY = -(P * np.log(P)).sum()
COUNT = np.bincount(DRAWN, minlength=V)
OCCURS = np.bincount(TEXT + DRAWN, minlength=V) > 0
MU = 6.0 - 0.5 * sum(-np.log2(0.05) - 3.0 for _ in DRAWN)

CASES = {
  "plain": (chain([]), P),
  "ban": (SuppressTokens((3, 9)), without(3, 9)),
  "bias": (LogitBias(BIAS.astype(np.float32)), softmax(LOGITS + BIAS)),
  "repetition": (
    RepetitionPenalty(1.5),
    softmax(
      np.where(OCCURS, LOGITS * np.where(LOGITS < 0, 1.5, 1 / 1.5), LOGITS)
    ),
  ),
  "counts": (
    CountPenalty(0.4, 0.3),
    softmax(LOGITS - 0.4 * (COUNT > 0) - 0.3 * COUNT),
  ),
  "no_repeat": (NoRepeatNgrams(2), without(9)),
  "bad_words": (BadWords.of([[0], [5, 3, 6], [9, 3, 1]]), without(0, 6)),
  "min_length": (MinLength(4, (3, 4)), without(3, 4)),
  "forced": (ForcedPrefix(np.array([9, 5, 3, 10])), np.eye(V)[10]),
  "temperature": (Temperature(0.6), softmax(LOGITS / 0.6)),
  "greedy": (Greedy(), np.eye(V)[3]),
  "top_k": (TopK(4), of_those(np.argsort(np.argsort(-LOGITS)) < 4)),
  "top_p": (TopP(0.7), fewest(np.argsort(-P), 0.7)),
  "min_p": (MinP(0.2), of_those(P / P.max() >= 0.2)),
  "typical": (Typical(0.5), fewest(np.argsort(abs(np.log(P) + ENTROPY)), 0.5)),
  "epsilon": (Epsilon(0.04), of_those(P >= 0.04)),
  "eta": (Eta(0.2), of_those(P * np.exp(ENTROPY) >= np.sqrt(0.2))),
  "mirostat": (Mirostat(3.0, 0.5), of_those(-np.log2(P) <= MU)),
}


@jax.jit
def draw_many(keys, logits_1V):
  return sample(keys, jnp.repeat(logits_1V, len(keys), axis=0))


@jax.jit
def behind_text(logits_processor):
  state = logits_processor.start(Prompt(jnp.array([TEXT]), jnp.array([0])), V)
  for token in DRAWN:
    log_prob = jnp.log(jnp.array([0.05]))
    state = logits_processor.advance(state, jnp.array([token]), log_prob)
  return logits_processor(jnp.array(LOGITS[None], jnp.float32), state)


@pytest.mark.parametrize("case", CASES)
def test_frequencies_are_those_of_the_sampler(case):
  logits_processor, expected = CASES[case]
  keys = jax.random.split(jax.random.key(1), NUMBER)
  counts = np.bincount(
    draw_many(keys, behind_text(logits_processor)), minlength=V
  )
  assert_frequencies(counts, expected)


def test_cases_leave_something_out_and_differ():
  """Or they would say less than they seem to."""
  for name in ("top_k", "top_p", "min_p", "typical", "epsilon", "eta"):
    assert 1 < (CASES[name][1] > 0).sum() < V, name
  assert 1 < (CASES["mirostat"][1] > 0).sum() < V
