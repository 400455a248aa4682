# SPDX-License-Identifier: Apache-2.0
"""Scores of texts are what evaluation sums and what sampling tells."""

import functools
import json
import math
import types

import jax
import numpy as np
import pytest

from lmjax import strict_json
from lmjax.data.text.batching import EVAL_ORDERS
from lmjax.data.tokenizers import CharacterTokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UsageError
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.seq2seq_sampler import Seq2SeqSampler
from lmjax.generation.text_sampler import TextSampler
from lmjax.models.neural_cache import CacheOptions
from lmjax.scoring.conditional import PairScorer
from lmjax.scoring.language_model import Score, Scorer, TextScorer
from lmjax.tasks.language_modeling import LanguageModeling
from lmjax.train_state import ModelState
from tests.helpers.variables import random_variables
from tests.tiny_models import (
  VOCAB_SIZE,
  built,
  encoder_decoder,
  recurrent,
  transformer,
)

EOS = CharacterTokenizer.eos_id

WINDOW = 6
MODELS = {
  "lstm": recurrent("lstm", num_layers=1),
  "transformer": transformer(
    num_layers=1, max_context=WINDOW, positions="learned"
  ),
  "endless": transformer(num_layers=1, max_context=4, positions="relative"),
}
CARRIES = {"lstm": True, "transformer": False, "endless": True}
TOKENIZER = CharacterTokenizer.train(["abcdefg"], 0, 1, False)


@functools.cache
def variables_of(name):
  return random_variables(MODELS[name], np.zeros((1, 1), int))


@functools.cache
def scorer_of(name):
  return Scorer(MODELS[name], WINDOW, CARRIES[name])


def text_of(length, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(4, VOCAB_SIZE, length).astype(np.int32)


@pytest.mark.parametrize("name", MODELS)
def test_scores_add_up_to_what_evaluation_does(name):
  """Of a text of several windows, with and without a carried state."""
  model, variables, tokens = MODELS[name], variables_of(name), text_of(22)
  order = "stateful" if CARRIES[name] else "stateless"
  stream = types.SimpleNamespace(tokens=tokens, num_tokens=len(tokens))
  batches = EVAL_ORDERS[order](stream, WINDOW, batch_size=1)
  task = LanguageModeling(model, np.ones(VOCAB_SIZE), "word", CARRIES[name])
  loss = jax.jit(functools.partial(task.loss, rngs={}, train=False))
  carry, nats, weight = task.initial_carry(1), 0.0, 0.0
  for index in range(len(batches)):
    outcome = loss(
      variables["params"], ModelState({}, carry), dict(batches[index])
    )
    carry = outcome.model_state.carry
    nats += float(outcome.sums.metrics["nats"])
    weight += float(outcome.sums.weight)
  (scores,) = scorer_of(name)(variables, [tokens])
  assert weight == len(scores) == 21
  np.testing.assert_allclose(-scores.sum(), nats, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_scores_depend_on_no_padding_and_no_neighbours(name):
  variables, score = variables_of(name), scorer_of(name)
  texts = [text_of(length, length) for length in (9, 1, 3, 17, 7, 4)]
  together = score(variables, texts)
  assert [len(scores) for scores in together] == [8, 0, 2, 16, 6, 3]
  for text, scores in zip(texts, together, strict=True):
    np.testing.assert_allclose(score(variables, [text])[0], scores, rtol=1e-5)
  for length in (2, 4):  # the same prefix, in programs of other lengths
    (begin,) = score(variables, [texts[3][: length + 1]])
    np.testing.assert_allclose(begin, together[3][:length], rtol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_what_was_drawn_scores_as_it_was_told(name):
  """After its prompt, with any logits processor."""
  model, variables = MODELS[name], variables_of(name)
  sampler = TextSampler(model, TOKENIZER)
  prompts = ["abc", "g"]
  params = SamplingParams(num_tokens=3, num_samples=2, seed=1, top_k=5)
  requests = sampler.requests(prompts, params)
  sampled = sampler.generate(variables, prompts, params).completions
  pairs = list(zip(requests, sampled, strict=True))
  texts = [np.array([*asked.tokens, *made.tokens]) for asked, made in pairs]
  all_scores = scorer_of(name)(variables, texts)
  for (asked, made), scores in zip(pairs, all_scores, strict=True):
    expected = scores[len(asked.tokens) - 1 :]
    np.testing.assert_allclose(made.log_probs, expected, rtol=1e-5)
  assert max(len(made.tokens) for made in sampled) == 3


def test_texts_begin_behind_eos_where_documents_do():
  """Else the first token has no score."""
  variables = variables_of("lstm")
  make = functools.partial(TextScorer, MODELS["lstm"], TOKENIZER, WINDOW, True)
  (plain,) = make()(variables, ["abcd"])
  (opened,) = make(starts_documents=True)(variables, ["abcd"])
  assert plain.tokens == opened.tokens == TOKENIZER.encode("abcd").tolist()
  assert np.isnan(plain.log_probs[0]) and plain.num_scored == 3
  assert opened.num_scored == 4
  (scores,) = scorer_of("lstm")(
    variables, [np.array([EOS, *TOKENIZER.encode("abcd")])]
  )
  np.testing.assert_allclose(opened.log_probs, scores, rtol=1e-5)
  (alone,) = make()(variables, ["a"])
  assert alone.num_scored == 0 and alone.log_prob == 0.0
  assert str(alone) == "0 of 1 tokens scored"
  assert strict_json.dumps(alone.report()["perplexity"]) == "null"
  with pytest.raises(UsageError, match="text is empty"):
    make()(variables, ["abcd", ""])


def test_a_control_code_stands_before_a_text():
  """Nothing else changes but that the first token has a score."""
  tokenizer = CharacterTokenizer.train(["abcde"], 0, 1, False)
  tokenizer = tokenizer.with_special_tokens(("<x>", "<y>"))
  variables = variables_of("lstm")
  make = TextScorer(MODELS["lstm"], tokenizer, WINDOW, carries=True)
  scores = {
    control_code: make(variables, ["abc"], control_code)[0]
    for control_code in ("x", "y")
  }
  for control_code, score in scores.items():
    tokens = np.array(
      [tokenizer.special_token_id(f"<{control_code}>"), *score.tokens]
    )
    (expected,) = scorer_of("lstm")(variables, [tokens])
    np.testing.assert_allclose(score.log_probs, expected, rtol=1e-5)
  assert scores["x"].log_prob != scores["y"].log_prob
  with pytest.raises(UsageError, match="'z' is no control code"):
    make(variables, ["abc"], "z")


def test_a_text_longer_than_the_context_is_said_to_be_cut():
  for name, windows in (("transformer", 3), ("lstm", 1)):
    score = TextScorer(MODELS[name], TOKENIZER, WINDOW, CARRIES[name])
    whole, short = score(variables_of(name), ["abcdefgabcdefg", "abcdefg"])
    assert whole.num_sequences == windows and short.num_sequences == 1
    assert ("3 windows" in str(whole)) == (windows == 3)
    assert "windows" not in str(short)


def test_a_neural_cache_remembers_the_whole_text():
  """A text that comes again surprises less, though windows are shorter."""
  cache = CacheOptions(40, 1.0, 0.3)
  model = cache.wrap(MODELS["transformer"], carries_model=False)
  score = Scorer(model, WINDOW, carries=True)
  text = text_of(15)
  (scores,) = score(variables_of("transformer"), [np.tile(text, 2)])
  assert scores[15:].sum() > scores[:14].sum() + 1.0


def test_figures_are_those_of_the_tokens():
  log_probs = np.log(np.array([np.nan, 0.5, 0.125], np.float32))
  score = Score("abc", [4, 5, 6], log_probs, 1)
  report = json.loads(strict_json.dumps(score.report()))
  assert report["surprisals"] == [None, 1.0, 3.0]
  assert report["log_prob"] == pytest.approx(math.log(1 / 16))
  assert report["perplexity"] == pytest.approx(4.0)
  assert report["bits_per_token"] == pytest.approx(2.0)
  assert str(score).startswith("2 of 3 tokens scored: -2.773 nats, perplexity")
  impossible = score._replace(log_probs=np.array([-np.inf], np.float32))
  report = json.loads(strict_json.dumps(impossible.report()))
  assert report["log_prob"] is None and report["surprisals"] == [None]


PAIRS = {
  "prefix": (
    transformer(num_layers=1, max_context=16, positions="relative"),
    TextSampler,
    dict(bidirectional_prompt=True),
  ),
  "transformer": (
    encoder_decoder(
      num_layers=1, source_vocab_size=VOCAB_SIZE, tie_embeddings=False
    ),
    Seq2SeqSampler,
    {},
  ),
  "recurrent": (
    built(
      "recurrent_seq2seq", cell="gru", embedding_width=6, num_encoder_layers=1
    ),
    Seq2SeqSampler,
    {},
  ),
}


def pair_scorer(name):
  """Return a scorer, a sampler and variables."""
  model, kind, options = PAIRS[name]
  other = CharacterTokenizer.train(["abcdefg"], 0, 1, False)
  known = Vocabularies({"target": TOKENIZER, "source": other})
  sampler = kind(model, TOKENIZER if options else known, **options)
  variables = random_variables(model, np.zeros((1, 2), int))
  return PairScorer(model, sampler, other), sampler, variables


@pytest.mark.parametrize("name", PAIRS)
def test_texts_behind_others_are_scored_as_they_are_drawn(name):
  """The end of a target too, which sampling does not tell of."""
  score, sampler, variables = pair_scorer(name)
  texts = []
  for number in (2, 5):
    params = SamplingParams(num_tokens=number, min_tokens=number)
    texts += sampler.generate(variables, "abcde", params).completions
  scores = score(variables, [x.text for x in texts], prompt="abcde")
  ends = sampler.reads_sources
  for sampled, scored in zip(texts, scores, strict=True):
    assert scored.tokens == sampled.tokens + [EOS] * ends
    np.testing.assert_allclose(
      scored.log_probs[: len(sampled.tokens)], sampled.log_probs, rtol=1e-4
    )
    spans = score.spans(scored)
    assert "".join(x.text for x in spans) == sampled.text + " <eos>" * ends
  (other,) = score(variables, [texts[1].text], prompt="gf")
  assert abs(other.log_prob - scores[1].log_prob) > 1e-3
  with pytest.raises(UsageError, match="text is empty"):
    score(variables, [""], prompt="a")
  if name != "recurrent":
    long = "the text has 17" if ends else "the text with its prompt has 17"
    with pytest.raises(UsageError, match=f"{long} tokens and the model's"):
      score(variables, ["a" * (16 if ends else 17)], prompt="a")


@pytest.mark.parametrize("name", PAIRS)
def test_what_texts_look_at_has_names(name):
  score, sampler, variables = pair_scorer(name)
  (maps,) = score.attention_maps(variables, "gab", 9, prompt="cd").values()
  if sampler.reads_sources:
    assert maps.rows == ["g", "a", "b", "<eos>"]
    assert maps.columns == ["c", "d", "<eos>"]
  else:
    assert maps.rows == maps.columns == ["c", "d", "g", "a", "b"]
    assert maps.weights_HTS[:, 0, 1].min() > 0  # a prefix is read both ways
  shape = len(maps.rows), len(maps.columns)
  assert maps.weights_HTS.shape[1:] == shape
  np.testing.assert_allclose(maps.weights_HTS.sum(axis=2), 1.0, atol=1e-5)


def test_a_prompt_stands_before_a_text_and_is_not_scored():
  variables = variables_of("lstm")
  score = TextScorer(MODELS["lstm"], TOKENIZER, WINDOW, carries=True)
  (whole,), (behind,) = (
    score(variables, ["abcdefg"]),
    score(variables, ["efg"], prompt="abcd"),
  )
  assert behind.text == "efg" and behind.num_scored == 3
  np.testing.assert_allclose(behind.log_probs, whole.log_probs[4:], rtol=1e-5)
