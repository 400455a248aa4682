# SPDX-License-Identifier: Apache-2.0
"""The n-gram model finds in its tables what the tables' own rule finds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.errors import UserError
from lmjax.models.ngram import NGram, levels_of
from lmjax.ngrams import arpa, smoothing
from lmjax.ngrams.backoff import score
from lmjax.ngrams.counting import count
from lmjax.run import Run
from lmjax.training.loop import train

B, T, V, ORDER = 3, 9, 13, 4
NAMES = ["<pad>", "<unk>", "<bos>", "<eos>", *"abcdefghi"]


@pytest.fixture(scope="module")
def made():
  """A model, its variables, its tables, and text that it has partly seen."""
  rng = np.random.default_rng(0)
  text = rng.choice(V - 4, 300, p=np.arange(1, V - 3) / 45) + 4
  model = NGram(V, ORDER, smoothing.modified_kneser_ney)
  counted = model.estimate(text, np.zeros(1, int), NAMES)
  variables = jax.tree.map(jnp.asarray, counted)
  levels = smoothing.modified_kneser_ney(count(text, ORDER, V), (0, 2))
  tokens = np.stack([text[:T], text[50 : 50 + T], rng.integers(4, V, T)])
  return model, variables, levels, tokens


@functools.partial(jax.jit, static_argnums=0)
def logits(model, variables, tokens, carry=None, resets=None):
  hidden, carry = model.apply(variables, tokens, carry, resets)
  scores = model.apply(variables, hidden, method="logits")
  return scores, hidden, carry


def test_scores_are_those_of_the_tables(made):
  model, variables, levels, tokens = made
  scores, hidden, _ = logits(model, variables, tokens)
  targets = np.roll(tokens, -1, axis=1)
  ours = model.apply(variables, hidden, targets, method="log_probs")
  picked = np.take_along_axis(scores, targets[..., None], 2)[..., 0]
  np.testing.assert_allclose(ours, picked, rtol=1e-6)
  for row in range(B):
    theirs = score(levels, tokens[row])
    np.testing.assert_allclose(ours[row, :-1], theirs[1:], rtol=1e-5)


def test_probabilities_of_every_context_sum_to_one(made):
  model, variables, _, tokens = made
  scores, _, _ = logits(model, variables, tokens)
  np.testing.assert_allclose(jnp.exp(scores).sum(-1), 1.0, atol=1e-5)
  assert np.all(np.exp(scores[..., [0, 2]]) == 0)  # never next


def test_pieces_and_resets_change_nothing_but_the_context(made):
  model, variables, _, tokens = made
  full, _, _ = logits(model, variables, tokens)
  carry, pieces = model.initial_carry(B, 0), []
  for start, stop in ((0, 4), (4, 5), (5, 9)):
    out, _, carry = logits(model, variables, tokens[:, start:stop], carry)
    pieces.append(out)
  np.testing.assert_array_equal(full, jnp.concatenate(pieces, 1))
  resets = jnp.zeros((B, T), bool).at[:, 5].set(True)
  packed, _, carry = logits(
    model, variables, tokens, model.initial_carry(B, 0), resets
  )
  alone, _, _ = logits(model, variables, tokens[:, 5:])
  np.testing.assert_array_equal(packed[:, 5:], alone)
  np.testing.assert_array_equal(packed[:, :5], full[:, :5])
  swapped, _, _ = logits(model, variables, tokens[::-1], carry[::-1])
  ordered, _, _ = logits(model, variables, tokens, carry)
  np.testing.assert_array_equal(swapped[::-1], ordered)


def test_cross_entropy_adds_the_scores_and_knows_the_best(made):
  model, variables, _, tokens = made
  targets = np.roll(tokens, -1, axis=1)
  weights = np.random.default_rng(1).random((B, T)).astype(np.float32)
  scores, hidden, _ = logits(model, variables, tokens)
  sums = model.apply(
    variables, hidden, targets, weights, method="cross_entropy"
  )
  picked = np.take_along_axis(scores, targets[..., None], 2)[..., 0]
  np.testing.assert_allclose(sums.loss, -(picked * weights).sum(), rtol=1e-5)
  best = picked >= scores.max(-1) - 1e-6
  np.testing.assert_allclose(sums.correct, (best * weights).sum(), rtol=1e-5)
  assert 0 < best.sum() < best.size


@pytest.mark.parametrize("order", [1, 2])
def test_short_orders_have_carries_too(order):
  model = NGram(V, order, smoothing.kneser_ney)
  text = np.array([4, 5, 4, 6, 4, 5, 7])
  counted = model.estimate(text, np.zeros(1, int), NAMES)
  variables = jax.tree.map(jnp.asarray, counted)
  scores, _, carry = logits(
    model, variables, text[None], model.initial_carry(1, 0)
  )
  assert carry.shape == (1, 1)
  same = np.array_equal(scores[0, 0], scores[0, 1])
  assert same == (order == 1)


def test_a_run_is_counted_judged_sampled_and_gone_on_with(
  tiny_config, tmp_path
):
  config = tiny_config("ngram", **{"data.order": "stateful"})
  assert train(config, tmp_path / "run") == 0
  before = (tmp_path / "run" / "metrics.jsonl").read_text()
  assert train(config, tmp_path / "run") == 0
  assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
  run = Run(tmp_path / "run")
  report = run.evaluate("valid")
  assert 1 < report["perplexity"] < 8
  assert run.generate("The ", num_tokens=20, seed=1) == run.generate(
    "The ", num_tokens=20, seed=1
  )
  # The same tables by way of a file, from another start.
  tables = tmp_path / "tables.arpa.gz"
  arpa.write(tables, levels_of(run.variables), run.tokenizer.names())
  config.model.arpa = str(tables)
  assert train(config, tmp_path / "read") == 0
  again = Run(tmp_path / "read").evaluate("valid")
  assert again["loss"] == pytest.approx(report["loss"], rel=1e-4)
  config.model.order = 3
  with pytest.raises(UserError, match="has order 5; set model.order to it"):
    train(config, tmp_path / "other")


def test_text_shorter_than_the_order_is_refused():
  model = NGram(V, 3, smoothing.kneser_ney)
  with pytest.raises(UserError, match="no 3 tokens in a row"):
    model.estimate(np.array([4, 5]), np.zeros(1, int), NAMES)
