# SPDX-License-Identifier: Apache-2.0
"""Contrastive search against the paper's formula, token by token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.decoding.contrastive import contrastive_search
from lmjax.decoding.logits_processors import Prompt, SuppressTokens, chain

V, D, HASHES, PAD, STOP, N = 7, 5, 61, 0, 1, 12
RNG = np.random.default_rng(0)
SCORES = 1.2 * RNG.normal(size=(HASHES, V))
VECTORS = RNG.normal(size=(HASHES, D)) + 0.5
PROMPTS = [[2, 3, 4], [5], [6, 3]]


class HashModel:
  """A DecodingModel with tables of logits and hidden vectors."""

  def initial_carry(self, batch_size, capacity):
    del capacity
    return jnp.zeros(batch_size, int)

  def repeat(self, times):
    del times
    return self

  def forward(self, tokens, hashed, resets=None):
    hashes = []
    for column in range(tokens.shape[1]):
      if resets is not None:
        hashed = jnp.where(resets[:, column], 0, hashed)
      hashed = (7 * hashed + 3 * tokens[:, column] + 1) % HASHES
      hashes.append(hashed)
    self.last = hashed
    return jnp.array(VECTORS)[jnp.stack(hashes, axis=1)], hashed

  def last_logits(self, hidden):
    del hidden
    return jnp.array(SCORES)[self.last]


@functools.partial(jax.jit, static_argnums=0)
def search(number, alpha, limits):
  tokens = jnp.array([[PAD] * (3 - len(p)) + p for p in PROMPTS])
  prompt = Prompt(tokens, jnp.array([3 - len(p) for p in PROMPTS]))
  return contrastive_search(
    HashModel(),
    prompt,
    limits,
    N,
    chain([SuppressTokens((PAD,))]),
    num_candidates=number,
    alpha=alpha,
    stop_token=STOP,
    pad_token=PAD,
  )


def by_hand(prompt, number, alpha, limit):
  def after(tokens):
    hashed = 0
    for token in tokens:
      hashed = (7 * hashed + 3 * token + 1) % HASHES
    return SCORES[hashed], VECTORS[hashed] / np.linalg.norm(VECTORS[hashed])

  text, log_probs = list(prompt), []
  seen = [after(text[: n + 1])[1] for n in range(len(text))]
  while len(text) < len(prompt) + limit and STOP not in text[len(prompt) :]:
    scores, _ = after(text)
    allowed = np.where(np.arange(V) == PAD, -np.inf, scores)
    probs = np.exp(allowed) / np.exp(allowed).sum()
    found = []
    for token in np.argsort(-probs)[:number]:
      vector = after([*text, token])[1]
      nearest = max(vector @ other for other in seen)
      found.append(((1 - alpha) * probs[token] - alpha * nearest, token))
    token = int(max(found)[1])
    log_probs.append(scores[token] - np.log(np.exp(scores).sum()))
    text.append(token)
    seen.append(after(text)[1])
  return text[len(prompt) :], log_probs


def test_each_token_is_the_one_of_the_formula():
  limits, alphas, texts = [N, N, 5], (0.0, 0.3, 0.6), set()
  for alpha in alphas:
    found = search(4, alpha, jnp.array(limits))
    for row, prompt in enumerate(PROMPTS):
      tokens, log_probs = by_hand(prompt, 4, alpha, limits[row])
      count, pad = len(tokens), [PAD] * (N - len(tokens))
      assert found.sampled.tokens_BN[row].tolist() == tokens + pad
      assert found.count_B[row] == count
      assert bool(found.done_B[row]) == (tokens[-1] == STOP)
      np.testing.assert_allclose(
        found.sampled.log_probs_BN[row, :count], log_probs, rtol=1e-4
      )
      texts.add(tuple(tokens))
  assert len(texts) > len(PROMPTS) + 2  # α matters


def test_one_candidate_is_greedy_whatever_the_weight():
  found = search(1, 0.9, jnp.array([N] * 3))
  for row, prompt in enumerate(PROMPTS):
    tokens, _ = by_hand(prompt, V, 0.0, N)
    assert found.sampled.tokens_BN[row, : len(tokens)].tolist() == tokens
