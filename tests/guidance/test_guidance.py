# SPDX-License-Identifier: Apache-2.0
"""Other models that have a say, against what follows from whole texts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.generate import decode, prefill
from lmjax.decoding.logits_processors import Classifier, Expert, Prompt, chain
from tests.helpers.log_probs import full_log_probs
from tests.helpers.variables import random_variables
from tests.tiny_models import recurrent, transformer

V, CONTEXT, NUM_TOKENS = 11, 8, 4
PAD, EOS = 0, 3
SKIPPED = (PAD, 2, EOS)
MODELS = {
  "lstm": recurrent("lstm", V, num_layers=1),
  "transformer": transformer(V, num_layers=1, max_context=CONTEXT),
}
TEXTS = [[5, 7, 4, 8], [9], [6, 10, 5]]  # prompts


def padded(texts, length):
  """Write texts behind padding, which is no token that a model ignores."""
  tokens_BT = np.full((len(texts), length), 2, np.int32)
  for row, text in enumerate(texts):
    tokens_BT[row, length - len(text) :] = text
  starts_B = np.array([length - len(text) for text in texts])
  return Prompt(jnp.array(tokens_BT), jnp.array(starts_B))


@functools.cache
def variables_of(name):
  return random_variables(MODELS[name], jnp.zeros((1, 1), int))


def expert(name, weight):
  model = DecodingModel(MODELS[name], variables_of(name))
  return Expert(model, weight, NUM_TOKENS)


def log_probs(name, text):
  """Score the token after a text, without a cache."""
  padding = [PAD] * (CONTEXT - len(text))  # invisible to the text
  tokens_1T = jnp.array([[*text, *padding]])
  model, variables = MODELS[name], variables_of(name)
  return full_log_probs(model, variables, tokens_1T)[0, len(text) - 1]


@functools.partial(jax.jit, static_argnames="max_context")
def continue_texts(prompt, logits_processor, max_context):
  """Sample from an LSTM, with one call of the loop."""
  model = DecodingModel(MODELS["lstm"], variables_of("lstm"))
  rows = len(prompt.starts_B)
  sampled, _ = decode(
    model,
    prefill(model, prompt, logits_processor, 0, max_context),
    jax.random.split(jax.random.key(1), rows),
    jnp.full(rows, NUM_TOKENS),
    NUM_TOKENS,
    logits_processor,
    stop_tokens=(-1,),
    pad_token=PAD,
    max_context=max_context,
  )
  return sampled.tokens_BN


@pytest.mark.parametrize("name", MODELS)
def test_an_expert_reads_on_as_it_would_read_the_whole_text(name):
  """Whatever the padding, though its context be shorter than that."""
  logits_processor = expert(name, -0.7)
  later = [[4, 8, 8, 6], [10, 6, 9, 4], [7, 7, 5, 10]]
  logits = jnp.array(np.random.default_rng(0).normal(size=(3, V)))
  logits = logits.at[:, PAD].set(-jnp.inf)

  @functools.partial(jax.jit, static_argnums=0)
  def along(length):
    prompt = padded(TEXTS, length)
    state, made = logits_processor.start(prompt, V), []
    for place in range(NUM_TOKENS):
      made.append(logits_processor(logits, state))
      token_B = jnp.array([tokens[place] for tokens in later])
      state = logits_processor.advance(state, token_B, jnp.zeros(3))
    return made

  for length in (4, 11):
    for place, made_BV in enumerate(along(length)):
      for row, text in enumerate(TEXTS):
        said_V = log_probs(name, text + later[row][:place])
        np.testing.assert_allclose(
          made_BV[row], logits[row] - 0.7 * said_V, atol=1e-4
        )


def test_experts_and_antiexperts_multiply_by_the_ratio():
  """DExperts: p ∝ p_base (p_expert / p_antiexpert)^α."""
  alpha, prompt = 1.3, padded(TEXTS, 4)
  both = chain([expert("lstm", alpha), expert("transformer", -alpha)])
  base = jax.nn.softmax(jnp.array(np.random.default_rng(1).normal(size=(3, V))))
  state = jax.jit(both.start, static_argnums=1)(prompt, V)
  mixed = jax.nn.softmax(both(jnp.log(base), state))
  for row, text in enumerate(TEXTS):
    ratio = jnp.exp(log_probs("lstm", text) - log_probs("transformer", text))
    expected = base[row] * ratio**alpha
    np.testing.assert_allclose(mixed[row], expected / expected.sum(), rtol=1e-3)


def test_an_expert_that_takes_back_what_the_model_says_leaves_all_alike():
  """In the loop: each token is of the uniform distribution, by its key."""
  prompt = padded(TEXTS * 300, 4)
  tokens_BN = continue_texts(prompt, chain([expert("lstm", -1.0)]), None)
  counts_V = np.bincount(np.asarray(tokens_BN).reshape(-1), minlength=V)
  expected = tokens_BN.size / V
  assert ((counts_V - expected) ** 2 / expected).sum() < 29.6  # p = 0.001


def test_what_an_expert_is_sure_cannot_be_stays_finite():
  class TableModel:
    max_context = None

    def initial_carry(self, batch_size, capacity):
      del batch_size, capacity
      return ()

    def prefill(self, tokens_BT, carry, resets_BT):
      del resets_BT
      return table_VV[tokens_BT[:, -1]], carry

  table_VV = jnp.full((V, V), -jnp.inf).at[:, 4].set(0.0)
  for weight in (2.0, -2.0, 0.0):
    logits_processor = Expert(TableModel(), weight, 1)
    made = logits_processor(
      jnp.zeros((3, V)), logits_processor.start(padded(TEXTS, 4), V)
    )
    assert np.isfinite(made).all()
    assert made[0, 4] == 0.0 and made[0, 5] == -100.0 * weight


ask = jax.jit(
  lambda logits_processor, logits_BV, state: logits_processor(logits_BV, state)
)
WORTH = np.random.default_rng(4).normal(size=(9, V))


def judge(worth, tokens_NW, mask_NW):
  """Weigh each token by its place, so that order and padding matter."""
  place_W = jnp.arange(tokens_NW.shape[1])
  worth_NW = worth[place_W, tokens_NW]
  return jax.nn.log_sigmoid(jnp.where(mask_NW, worth_NW, 0.0).sum(axis=1))


def classifier(seq_len, k, weight):
  return Classifier(
    jnp.array(WORTH), weight, judge, k, seq_len, skipped=SKIPPED
  )


@pytest.mark.parametrize("seq_len", [3, 9])
def test_a_classifier_scores_the_best_tokens_behind_the_text(seq_len):
  """A text longer than the window has lost its first tokens."""
  k, weight = 4, 1.7
  logits_processor = classifier(seq_len, k, weight)
  texts = [[EOS, 5, 7, 4], [9], [6, EOS, 5]]
  later = [[8, EOS, 6], [10, 4, 4], [7, 5, 9]]
  rng = np.random.default_rng(2)
  state = logits_processor.start(padded(texts, 5), V)
  for place in range(3):
    logits_BV = jnp.array(rng.normal(size=(3, V)), jnp.float32)
    logits_BV = logits_BV.at[:, EOS].add(1.5)
    made_BV = ask(logits_processor, logits_BV, state)
    for row in range(3):
      read_V = np.full(V, -np.inf)
      text = texts[row] + later[row][:place]
      for token in np.argsort(-logits_BV[row])[:k].tolist():
        read_now = [t for t in [*text, token] if t not in SKIPPED][-seq_len:]
        worth = sum(WORTH[at, t] for at, t in enumerate(read_now))
        read_V[token] = logits_BV[row, token] - weight * np.log1p(
          np.exp(-worth)
        )
      np.testing.assert_allclose(made_BV[row], read_V, rtol=1e-4)
    token_B = jnp.array([tokens[place] for tokens in later])
    state = logits_processor.advance(state, token_B, jnp.zeros(3))


def test_a_classifier_never_sees_what_it_has_no_vector_for():
  """Such as the mark of a control code, in the prompt or before it."""

  def is_known(unused, tokens_NW, mask_NW):
    return jnp.where(jnp.isin(tokens_NW, jnp.array([2, EOS])).any(1), -9.0, 0.0)

  logits_processor = Classifier(None, 1.0, is_known, V, 6, skipped=SKIPPED)
  prompt = padded([[EOS, 5, 7, EOS, 4], [EOS], [9]], 5)
  logits_BV = jnp.zeros((3, V))
  made_BV = logits_processor(logits_BV, logits_processor.start(prompt, V))
  np.testing.assert_array_equal(made_BV, logits_BV)


def test_a_classifier_draws_what_bayes_says():
  """p(token) p(class | token), renormalised, with all tokens candidates."""
  base_V = jnp.array(np.random.default_rng(6).normal(size=V))
  logits_processor = classifier(9, V, 1.0)
  prompt = padded([[5]], 1)
  made = jax.nn.softmax(
    ask(logits_processor, base_V[None], logits_processor.start(prompt, V))[0]
  )
  worth_V = WORTH[0, 5] + np.array(WORTH[1])
  worth_V[[*SKIPPED]] = WORTH[0, 5]
  expected = jax.nn.softmax(base_V) / (1 + np.exp(-worth_V))
  np.testing.assert_allclose(made, expected / expected.sum(), rtol=1e-4)


def test_a_classifier_sees_what_is_drawn_in_the_loop():
  """A weight that drowns the model makes each token the best for the class."""
  logits_processor = chain([classifier(9, V, 1e4)])
  tokens_BN = np.asarray(
    continue_texts(padded(TEXTS, 4), logits_processor, None)
  )
  for row, text in enumerate(TEXTS):
    for token in tokens_BN[row].tolist():
      worth_V = WORTH[len(text)].copy()
      worth_V[[*SKIPPED]] = 0.0
      assert token == np.argmax(worth_V)
      text = [*text, token]
