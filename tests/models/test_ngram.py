# SPDX-License-Identifier: Apache-2.0
"""The n-gram model equals its back-off tables."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.config.model_keys import MODEL_KEYS
from lmjax.errors import UserError
from lmjax.generation.sampling_params import SamplingParams
from lmjax.models.ngram import SMOOTHINGS, NGram, build, levels_of
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


def test_log_probs_equal_those_of_the_tables(made):
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


def test_chunks_and_resets_only_change_the_context(made):
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


def test_cross_entropy_sums_log_probs_and_counts_correct(made):
  model, variables, _, tokens = made
  targets = np.roll(tokens, -1, axis=1)
  weights = np.random.default_rng(1).random((B, T)).astype(np.float32)
  scores, hidden, _ = logits(model, variables, tokens)
  sums = model.apply(
    variables, hidden, targets, weights, method="cross_entropy"
  )
  picked = np.take_along_axis(scores, targets[..., None], 2)[..., 0]
  np.testing.assert_allclose(sums.loss, -(picked * weights).sum(), rtol=1e-5)
  best = targets == scores.argmax(-1)
  np.testing.assert_allclose(sums.correct, (best * weights).sum(), rtol=1e-5)
  assert 0 < best.sum() < best.size


@pytest.fixture(scope="module")
def long_text():
  """Text of a vocabulary of 200, where each token leans on the one before."""
  rng = np.random.default_rng(0)
  shares = 1 / np.arange(1, 197)
  text = rng.choice(196, 6000, p=shares / shares.sum())
  text[1::2] = (text[::2] * 7 + text[1::2] // 20) % 196
  return text + 4


@pytest.mark.parametrize("smoothing_name", SMOOTHINGS)
def test_most_likely_token_counts_as_correct(
  smoothing_name, tiny_config, long_text
):
  config = tiny_config(
    "ngram", **{"model.smoothing": smoothing_name, "model.order": 4}
  )
  model = build(config, 200)
  names = [*NAMES[:4], *map(str, range(196))]
  variables = model.estimate(long_text, np.zeros(1, int), names)
  variables = jax.tree.map(jnp.asarray, variables)
  # As it was counted, and with every third token another, so that it backs off.
  tokens = np.stack([long_text[:512], long_text[512:1024]])
  tokens[1, ::3] = np.random.default_rng(1).integers(4, 200, 171)
  scores, hidden, _ = logits(model, variables, tokens)
  top = np.sort(scores)[..., -2:]
  clear = (top[..., 1] > top[..., 0] + 1e-5).astype(np.float32)
  assert clear.mean() > 0.1
  best = scores.argmax(-1)
  for targets, share in ((best, 1.0), (best ^ 1, 0.0)):
    sums = model.apply(
      variables, hidden, targets, clear, method="cross_entropy"
    )
    assert sums.correct == share * clear.sum()


def test_config_selects_every_smoothing(tiny_config, long_text):
  """With add_k and backoff_factor having an effect, where they are used."""

  def tables(**changes):
    flat = {f"model.{key}": value for key, value in changes.items()}
    model = build(tiny_config("ngram", **{"model.order": 3, **flat}), 200)
    names = [*NAMES[:4], *map(str, range(196))]
    return model.estimate(long_text, np.zeros(1, int), names)["ngrams"]

  counts, excluded = count(long_text, 3, 200), (0, 2)
  expected = {
    "add_k": smoothing.add_k(counts, 0.1, excluded),
    "stupid_backoff": smoothing.stupid_backoff(counts, 0.4, excluded),
  }
  for name in SMOOTHINGS:
    if name not in expected:
      expected[name] = getattr(smoothing, name)(counts, excluded)
    found = levels_of({"ngrams": tables(smoothing=name)})
    for level, other in zip(found, expected[name], strict=True):
      np.testing.assert_allclose(level.log_probs, other.log_probs, rtol=1e-5)
      np.testing.assert_allclose(
        level.log_weights, other.log_weights, rtol=1e-4, atol=1e-6
      )
  for name, key in (("add_k", "add_k"), ("stupid_backoff", "backoff_factor")):
    one, other = (tables(smoothing=name, **{key: x}) for x in (0.2, 0.3))
    assert not np.array_equal(one["log_weights_2"], other["log_weights_2"])


@pytest.mark.parametrize("order", [6, MODEL_KEYS["ngram"]["order"].maximum])
def test_highest_orders_equal_their_tables(order, tiny_config):
  model = build(tiny_config("ngram", **{"model.order": order}), V)
  text = np.random.default_rng(0).integers(4, 7, 150)
  counted = model.estimate(text, np.zeros(1, int), NAMES)
  variables = jax.tree.map(jnp.asarray, counted)
  scores, _, _ = logits(model, variables, text[None, :40])
  picked = np.take_along_axis(scores[0, :-1], text[1:40, None], 1)[:, 0]
  levels = smoothing.modified_kneser_ney(count(text, order, V), (0, 2))
  np.testing.assert_allclose(picked, score(levels, text[:40])[1:], rtol=1e-5)


@pytest.mark.parametrize("resets", [False, True])
def test_ngrams_cross_documents_only_without_resets(resets, tiny_config):
  text = np.random.default_rng(0).integers(4, 7, 60)
  starts = np.array([0, 20, 41])
  changes = {"model.order": 3, "data.reset_at_documents": resets}
  model = build(tiny_config("ngram", **changes), V)
  found = levels_of(model.estimate(text, starts, NAMES))
  documents = starts if resets else starts[:1]
  levels = smoothing.modified_kneser_ney(count(text, 3, V, documents), (0, 2))
  for level, other in zip(found, levels, strict=True):
    np.testing.assert_array_equal(level.grams.starts, other.grams.starts)
    np.testing.assert_allclose(level.log_probs, other.log_probs, rtol=1e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_orders_1_and_2_have_a_carry(order):
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


def test_run_is_estimated_evaluated_sampled_and_resumed(tiny_config, tmp_path):
  config = tiny_config("ngram", **{"data.order": "stateful"})
  assert train(config, tmp_path / "run") == 0
  before = (tmp_path / "run" / "metrics.jsonl").read_text()
  assert train(config, tmp_path / "run") == 0
  assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
  run = Run(tmp_path / "run")
  report = run.evaluate("valid")
  assert 1 < report["perplexity"] < 8
  params = SamplingParams(num_tokens=20, seed=1)
  assert (
    run.generate("The ", params).texts == run.generate("The ", params).texts
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


@pytest.fixture
def write_documents(tmp_path):
  """Write documents for each split; return what a config needs for them."""

  def write(**splits):
    for split, documents in splits.items():
      lines = [json.dumps({"text": text}) + "\n" for text in documents]
      (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    return {
      "data.source": "jsonl",
      "data.path": str(tmp_path),
      "data.split_by": "name",
      "data.order": "stateful",
      "model.order": 3,
    }

  return write


def test_documents_are_scored_independently(
  tiny_config, tmp_path, write_documents
):
  """Log-probabilities equal the tables'; documents start without context."""
  rng = np.random.default_rng(0)
  train_texts, valid_texts = (
    ["".join(rng.choice([*"abc"], n)) for n in sizes]
    for sizes in ((30, 50, 1, 40), (20, 9, 1, 33))
  )
  documents = write_documents(train=train_texts, valid=valid_texts)
  changes = {**documents, "data.reset_at_documents": True}
  assert train(tiny_config("ngram", **changes), tmp_path / "run") == 0
  run = Run(tmp_path / "run", overrides={"data.batch_size": 1})
  stream = run.experiment.corpus.stream("valid")
  expected = score(levels_of(run.variables), stream.tokens, stream.starts)
  np.testing.assert_allclose(run.log_probs("valid"), expected[1:], rtol=1e-5)


def test_impossible_text_has_infinite_loss(
  tiny_config, tmp_path, write_documents
):
  """Maximum-likelihood counts give an unseen n-gram probability 0."""
  documents = write_documents(train=["abababab" * 9] * 2, valid=["abba" * 9])
  changes = {"model.smoothing": "maximum_likelihood", **documents}
  assert train(tiny_config("ngram", **changes), tmp_path / "run") == 0
  assert Run(tmp_path / "run").evaluate("valid")["loss"] == np.inf
  # Without <eos>, the documents' first tokens follow what they never followed.
  changes |= {"data.append_eos": False, "data.reset_at_documents": True}
  write_documents(train=["ababab" * 9, "bababa" * 9], valid=["abab"])
  changes["data.batch_size"] = 1
  changes["data.seq_len"] = 100
  assert train(tiny_config("ngram", **changes), tmp_path / "alone") == 0
  assert Run(tmp_path / "alone").evaluate("train")["loss"] == np.inf


def test_arpa_file_without_tokens_of_the_text_is_rejected(tmp_path):
  tables = smoothing.kneser_ney(count(np.array([0, 1, 0, 2, 1]), 2, 3))
  arpa.write(tmp_path / "few.arpa", tables, ["a", "b", "c"])
  model = NGram(V, 2, None, arpa=str(tmp_path / "few.arpa"))
  text = np.array([4, 5, 6, 5])
  assert model.estimate(text, np.zeros(1, int), NAMES)
  with pytest.raises(UserError, match="lacks .* text: '<eos>', 'd', 'f'; make"):
    model.estimate(np.append(text, [3, 7, 9]), np.zeros(1, int), NAMES)
  with pytest.raises(UserError, match="'d', 'e', 'f', 'g', 'h' and 1 more; m"):
    model.estimate(np.arange(4, V), np.zeros(1, int), NAMES)


def test_text_shorter_than_the_order_is_rejected():
  model = NGram(V, 3, smoothing.kneser_ney)
  with pytest.raises(UserError, match="no 3 tokens in a row"):
    model.estimate(np.array([4, 5]), np.zeros(1, int), NAMES)
