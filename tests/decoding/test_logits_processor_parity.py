# SPDX-License-Identifier: Apache-2.0
"""Logits processors against golden outputs of transformers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.decoding.logits_processors import (
  BadWords,
  Epsilon,
  Eta,
  LogitBias,
  MinLength,
  MinP,
  NoRepeatNgrams,
  Prompt,
  RepetitionPenalty,
  Temperature,
  TopK,
  TopP,
  Typical,
  chain,
)

GOLDEN = dict(
  np.load(Path(__file__).parent / "golden" / "logits_processors.npz")
)
LOGITS, TEXT = GOLDEN.pop("logits"), GOLDEN.pop("text")
WORDS = GOLDEN.pop("words")
V, PROMPT, STOPS = LOGITS.shape[1], 10, (2, 5)
BIAS = np.zeros(V, np.float32)
BIAS[[3, 30]] = 2.5, -4.0

CASES = {
  "temperature": Temperature(0.7),
  "top_k": TopK(5),
  "top_p": TopP(0.85),
  "min_p": MinP(0.07),
  "typical_wide": Typical(0.9),
  "typical_narrow": Typical(0.2),
  "epsilon": Epsilon(0.02),
  "epsilon_high": Epsilon(0.9),
  "eta": Eta(0.05),
  "eta_high": Eta(0.6),
  "repetition": RepetitionPenalty(1.3),
  "repetition_below_one": RepetitionPenalty(0.6),
  "no_repeat_1": NoRepeatNgrams(1),
  "no_repeat_2": NoRepeatNgrams(2),
  "no_repeat_3": NoRepeatNgrams(3),
  "bad_words": BadWords(WORDS),
  "min_length_short": MinLength(5, STOPS),
  "min_length_reached": MinLength(4, STOPS),
  "logit_bias": LogitBias(BIAS),
  "composed": chain(
    [
      LogitBias(BIAS),
      RepetitionPenalty(1.3),
      NoRepeatNgrams(2),
      MinLength(5, STOPS),
      Temperature(0.7),
      TopK(20),
      TopP(0.85),
      MinP(0.07),
      Typical(0.9),
      Epsilon(0.02),
      Eta(0.05),
    ]
  ),
}


def behind_text(logits_processor):
  prompt = Prompt(jnp.array(TEXT[:, :PROMPT]), jnp.zeros(len(TEXT), jnp.int32))
  state = logits_processor.start(prompt, V)
  for token_B in TEXT[:, PROMPT:].T:
    state = logits_processor.advance(
      state, jnp.array(token_B), jnp.zeros(len(TEXT))
    )
  return logits_processor(jnp.array(LOGITS), state)


def test_all_golden_values_are_looked_at():
  assert CASES.keys() == GOLDEN.keys()


@pytest.mark.parametrize("case", CASES)
def test_filters_equal_those_of_transformers(case):
  filtered = jax.jit(behind_text)(CASES[case])
  np.testing.assert_allclose(filtered, GOLDEN[case], rtol=1e-5, atol=1e-6)
