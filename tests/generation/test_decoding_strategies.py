# SPDX-License-Identifier: Apache-2.0
"""Decoding strategies, from prompts to texts, with models of two kinds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.data.tokenizers import CharacterTokenizer
from lmjax.decoding.logits_processors import Greedy, SuppressTokens, chain
from lmjax.errors import UsageError
from lmjax.generation.best_of_generator import (
  BestOfGenerator,
  score_by_log_probs,
  score_by_model,
  score_by_utility,
)
from lmjax.generation.continuation_scorer import ContinuationScorer
from lmjax.generation.decoding_strategies import (
  SAMPLE,
  AuxiliaryModel,
  Beam,
  BestOf,
  Contrastive,
  DiverseBeam,
  MinimumBayesRisk,
  PromptLookup,
  Sample,
  Speculative,
)
from lmjax.generation.generator import ModelBinder
from lmjax.generation.minimum_bayes_risk import UTILITIES, expected_utilities
from lmjax.generation.requests import Request
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import TextSampler
from lmjax.models.ngram import NGram
from tests.helpers.variables import random_variables
from tests.tiny_models import encoder_decoder, recurrent, transformer

TOKENIZER = CharacterTokenizer.train(["abc"], 0, 1, False)
V, CONTEXT = TOKENIZER.vocab_size, 12
TARGET = transformer(
  V, num_layers=1, positions="learned", max_context=CONTEXT, norm="rms"
)
OTHER = recurrent("lstm", V, num_layers=1)
VARIABLES, OTHERS = (
  random_variables(m, jnp.zeros((1, 1), int)) for m in (TARGET, OTHER)
)
AUXILIARY = AuxiliaryModel("--draft_workdir=lstm", OTHER, OTHERS, TOKENIZER)
PROMPTS = ["ab", "cabac"]
EOS = TOKENIZER.eos_id
NEVER = TOKENIZER.non_text_ids
SAMPLER = TextSampler(TARGET, TOKENIZER)
GREEDY = dict(temperature=0.0)


def generate(strategy, prompts=PROMPTS, **params):
  params = SamplingParams(**dict(num_tokens=6) | params)
  return SAMPLER.generate(VARIABLES, prompts, params, strategy=strategy)


def scorer(model=TARGET):
  return ContinuationScorer(ModelBinder(model), TOKENIZER.pad_id)


@pytest.fixture(scope="module")
def greedy():
  return generate(Sample(), **GREEDY).completions


def test_a_wide_beam_finds_the_best_of_all_texts():
  number, num_tokens = 3, 2
  strategy = Beam(beam_size=16, early_stopping="never")
  found = generate(
    strategy, num_samples=number, num_tokens=num_tokens
  ).completions
  letters = [t for t in range(V) if t not in (*NEVER, EOS)]
  score = scorer()
  ended = [[EOS], *([t, EOS] for t in letters)]
  for row, prompt in enumerate(PROMPTS):
    requests = [Request(TOKENIZER.encode(prompt), num_tokens)] * len(ended)
    totals = [sum(x) for x in score(VARIABLES, requests, ended)]
    for place, best in enumerate(np.argsort(totals)[::-1][:number]):
      text = found[number * row + place]
      assert text.tokens == ended[best][:-1] and text.finish_reason == "stop"
      assert text.score == pytest.approx(totals[best], abs=1e-4)


def test_samples_are_empty_where_a_beam_has_no_more_texts():
  found = generate(Beam(beam_size=8), num_samples=6, num_tokens=1).completions
  for row in range(len(PROMPTS)):
    texts = [text.text for text in found[6 * row : 6 * row + 6]]
    assert sorted(texts) == ["", "", "", "a", "b", "c"]
    assert texts[4:] == ["", ""]
    assert [x.score is None for x in found[6 * row :][:6]] == [False] * 4 + [
      True
    ] * 2


def test_a_prompt_asked_twice_gets_the_best_text_twice():
  prompts = ["ab", "cabac", "ab"]
  found = generate(Beam(beam_size=3), prompts, num_samples=2).completions
  sampled = [text.tokens for text in found]
  assert sampled[:2] == sampled[4:] and sampled[0] != sampled[1]


def test_time_ends_a_text_with_what_was_held_back():
  params = SamplingParams(
    num_tokens=40,
    min_tokens=40,
    stop=("a" * 99, "b" * 99, "c" * 99),
    **GREEDY,
  )
  deltas = [*SAMPLER.stream(VARIABLES, "ab", params, max_seconds=0.0)]
  (sampled,) = SAMPLER.generate(
    VARIABLES, "ab", params, max_seconds=0.0
  ).completions
  assert sampled.text == TOKENIZER.decode(sampled.tokens)
  assert len(sampled.tokens) < 40 and sampled.finish_reason == "length"
  streamed = deltas[-1].completion
  assert "".join(delta.text for delta in deltas) == streamed.text
  assert sampled.text.startswith(streamed.text)


def test_continuations_have_the_log_probs_of_generation(greedy):
  requests = [Request(TOKENIZER.encode(prompt), 6) for prompt in PROMPTS]
  texts = [text.tokens for text in greedy]
  for score, text in zip(
    scorer()(VARIABLES, requests, texts), greedy, strict=True
  ):
    np.testing.assert_allclose(score, text.log_probs, atol=1e-5)


@pytest.mark.parametrize(
  "strategy", [Speculative(draft=AUXILIARY), PromptLookup(num_draft=2)]
)
def test_speculation_keeps_greedy_texts(greedy, strategy):
  found, stats = generate(strategy, **GREEDY)
  assert [text.tokens for text in found] == [text.tokens for text in greedy]
  assert [text.finish_reason for text in found] == [
    text.finish_reason for text in greedy
  ]
  assert 1 <= stats.tokens_per_call <= 5


def test_contrastive_search_of_one_candidate_is_greedy(greedy):
  found = generate(Contrastive(num_candidates=1)).completions
  assert [text.tokens for text in found] == [text.tokens for text in greedy]
  for text, other in zip(found, greedy, strict=True):
    np.testing.assert_allclose(text.log_probs, other.log_probs, atol=1e-5)


def test_beam_of_one_is_greedy(greedy):
  found = generate(Beam(beam_size=1)).completions
  assert [text.tokens for text in found] == [text.tokens for text in greedy]


def test_a_diverse_beam_without_penalty_has_groups_of_equal_texts():
  strategy = DiverseBeam(beam_size=4, num_groups=2, diversity_penalty=0.0)
  one, two, three, four = generate(strategy, ["ab"], num_samples=4).texts
  assert one == two and three == four and one != three


def test_the_best_of_several_texts_is_kept():
  number, rows = 5, range(len(PROMPTS))
  generator = SAMPLE.build(ModelBinder(TARGET), TOKENIZER)
  logits_processor = SuppressTokens(NEVER)
  requests = SAMPLER.requests(PROMPTS, SamplingParams(num_tokens=6))
  many = [r._replace(sample=i) for r in requests for i in range(number)]
  sampled, _ = generator.complete(VARIABLES, many, logits_processor)
  texts = [chunk.tokens for chunk in sampled]
  by_other = scorer(OTHER)(OTHERS, many, texts)
  decoded, utility = [*map(TOKENIZER.decode, texts)], UTILITIES["chrf"]()
  utilities = [
    np.mean([utility(one, other) for other in decoded[row : row + number]])
    for row in (number * row for row in rows)
    for one in decoded[row : row + number]
  ]
  selected = []
  for score, scores in (
    (score_by_log_probs(True), [np.mean(x.log_probs) for x in sampled]),
    (
      score_by_model(scorer(OTHER), OTHERS, True),
      [np.mean(own) for own in by_other],
    ),
    (
      score_by_model(scorer(OTHER), OTHERS, False),
      [np.sum(own) for own in by_other],
    ),
    (score_by_utility(TOKENIZER.decode, utility), utilities),
  ):
    best_of = BestOfGenerator(generator, TOKENIZER, number, score)
    found, _ = best_of.complete(VARIABLES, requests, logits_processor)
    indices = np.reshape(scores, (-1, number)).argmax(axis=1)
    best = [number * row + indices[row] for row in rows]
    assert [x._replace(score=None) for x in found] == [sampled[i] for i in best]
    np.testing.assert_allclose(
      [chunk.score for chunk in found], [scores[i] for i in best], rtol=1e-4
    )
    selected += [*indices]
  assert len(set(selected)) > 2  # the scores disagree
  strategy = BestOf(num_sequences=number, reranker=AUXILIARY, per_token=False)
  texts = generate(strategy).texts
  indices = np.reshape([sum(own) for own in by_other], (-1, number)).argmax(1)
  assert texts == [decoded[number * row + indices[row]] for row in rows]
  texts = generate(MinimumBayesRisk(num_sequences=number)).texts
  indices = np.reshape(utilities, (-1, number)).argmax(1)
  assert texts == [decoded[number * row + indices[row]] for row in rows]


@pytest.mark.parametrize("reranker", [None, AUXILIARY])
def test_the_best_text_is_selected_after_truncation_at_stop_strings(reranker):
  number = 6
  params = SamplingParams(
    num_tokens=8, num_samples=number, stop=("ca",), min_tokens=8
  )
  sampled = SAMPLER.generate(VARIABLES, "ac", params).completions
  scores = [text.log_probs for text in sampled]
  if reranker:
    requests = SAMPLER.requests(["ac"], params)
    scores = scorer(OTHER)(OTHERS, requests, [text.tokens for text in sampled])
  best = sampled[int(np.argmax([*map(np.mean, scores)]))]
  assert len({len(text.tokens) for text in sampled}) > 2
  (found,) = SAMPLER.generate(
    VARIABLES,
    "ac",
    dataclasses.replace(params, num_samples=1),
    strategy=BestOf(num_sequences=number, reranker=reranker),
  ).completions
  assert found.tokens == best.tokens and found.text == best.text


STRATEGIES = (
  Sample(),
  Beam(beam_size=2),
  DiverseBeam(beam_size=2),
  Contrastive(num_candidates=2),
  Speculative(draft=AUXILIARY),
  PromptLookup(),
  BestOf(num_sequences=2),
  MinimumBayesRisk(num_sequences=2),
)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda x: type(x).__name__)
def test_a_second_call_with_equal_arguments_traces_nothing(strategy):
  events = []

  def listen(event, seconds, **options):
    del seconds, options
    events.append(event)

  first = generate(strategy).texts
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    # Another sampler and an equal strategy: programs belong to the model.
    sampler = TextSampler(TARGET, TOKENIZER)
    params = SamplingParams(num_tokens=6)
    SAMPLER.generate(VARIABLES, PROMPTS, params, strategy=strategy)
    traced = [event for event in events if "trace" in event]
    assert not traced
    generate(strategy, num_tokens=50 if strategy == Sample() else 4)
    assert strategy != Sample() or any("trace" in event for event in events)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  del sampler
  assert generate(strategy).texts == first


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda x: type(x).__name__)
def test_streamed_texts_equal_complete_ones(strategy):
  params = SamplingParams(num_tokens=6, stop=("cc",), seed=3)
  complete = SAMPLER.generate(VARIABLES, PROMPTS, params, strategy=strategy)
  texts, completions = [""] * len(PROMPTS), {}
  for delta in SAMPLER.stream(
    VARIABLES, PROMPTS, params, strategy=strategy, chunk_size=2, batch_size=1
  ):
    texts[delta.index] += delta.text
    if delta.completion:
      completions[delta.index] = delta.completion
  assert texts == complete.texts
  for index, expected in enumerate(complete.completions):
    assert completions[index].tokens == expected.tokens
    assert completions[index].finish_reason == expected.finish_reason
  assert delta.stats.new_tokens == complete.stats.new_tokens


@pytest.mark.slow
def test_every_strategy_uses_the_sources():
  model = encoder_decoder(V, num_layers=1, num_encoder_layers=1)
  variables = random_variables(model, jnp.zeros((1, 1), int))
  first = np.array([TOKENIZER.bos_id])
  sources = [np.array([4, 5, 6, 4]), np.array([6])]
  requests = [Request(first, 8, source=source) for source in sources]
  never_ends = SuppressTokens((*NEVER, EOS))
  binder, texts = ModelBinder(model), []
  for strategy in (
    Sample(),
    Contrastive(num_candidates=2, alpha=0.0),
    PromptLookup(),
  ):
    generator = strategy.build(binder, TOKENIZER)
    chunks, _ = generator.complete(
      variables, requests, chain([never_ends, Greedy()])
    )
    texts.append([chunk.tokens for chunk in chunks])
  assert texts[0] == texts[1] == texts[2]
  assert texts[0][0] != texts[0][1]
  beam = Beam(beam_size=3).build(binder, TOKENIZER)
  found, _ = beam.complete(variables, requests, never_ends)
  reverse, _ = beam.complete(variables, requests[::-1], never_ends)
  assert [x.tokens for x in found] == [x.tokens for x in reverse[::-1]]
  assert found[0].tokens != found[1].tokens


@pytest.mark.parametrize("name", UTILITIES)
def test_the_text_of_least_risk_is_the_one_most_like_all_others(name):
  texts = ["a b c d e", "a b c d f", "x y", "a b c d e", ""]
  utility = UTILITIES[name]()
  found = expected_utilities(texts, utility)
  expected = [
    np.mean([utility(text, other) for other in texts]) for text in texts
  ]
  np.testing.assert_allclose(found, expected)
  assert int(np.argmax(found)) == 0 and found[2] > 0


@pytest.mark.parametrize(
  ("cls", "settings", "message"),
  [
    (Beam, dict(beam_size=-1), "beam_size=-1 must be at least 1"),
    (Beam, dict(length_penalty=float("nan")), "=nan must be from 0 to 10"),
    (Beam, dict(length_penalty=1e6), "from 0 to 10"),
    (Beam, dict(early_stopping="no"), "early_stopping='no' must be one of"),
    (
      DiverseBeam,
      dict(beam_size=4, num_groups=3),
      "num_groups=3 must divide beam_size=4",
    ),
    (
      DiverseBeam,
      dict(diversity_penalty=float("inf")),
      "diversity_penalty=inf must be",
    ),
    (Contrastive, dict(alpha=1.5), "alpha=1.5 must be from 0 to 1"),
    (Contrastive, dict(num_candidates=0), "num_candidates=0 must be"),
    (BestOf, dict(num_sequences=0), "num_sequences=0 must be"),
    (MinimumBayesRisk, dict(utility="ter"), "must be chrf or bleu"),
    (PromptLookup, dict(num_draft=0), "num_draft=0"),
    (Speculative, dict(draft=AUXILIARY, num_draft=0), "num_draft=0"),
  ],
)
def test_invalid_fields_are_one_sentence(cls, settings, message):
  with pytest.raises(UsageError, match=message):
    cls(**settings)


def test_impossible_requests_are_one_sentence():
  other = CharacterTokenizer.train(["abcd"], 0, 1, False)
  with pytest.raises(UsageError, match="draft_workdir=lstm has another token"):
    TextSampler(TARGET, other).generate(
      VARIABLES, "a", strategy=Speculative(draft=AUXILIARY)
    )
  with pytest.raises(UsageError, match="num_tokens=2147483648 must be at most"):
    generate(SAMPLE, num_tokens=2**31)
  with pytest.raises(UsageError, match="num_samples=3 must not exceed"):
    generate(Beam(beam_size=2), num_samples=3)
  with pytest.raises(UsageError, match="beam_size=2 .* set temperature=1"):
    generate(Beam(beam_size=2), **GREEDY)
  with pytest.raises(UsageError, match="context of the model, which holds 12"):
    generate(Beam(beam_size=2), num_tokens=9)
  with pytest.raises(UsageError, match="coverage_penalty=0.2 needs source"):
    generate(Beam(beam_size=2, coverage_penalty=0.2))
  with pytest.raises(UsageError, match="max_seconds=1 needs strategy=Sample"):
    SAMPLER.generate(VARIABLES, "a", strategy=PromptLookup(), max_seconds=1)
  reranker = AuxiliaryModel("--rerank_workdir=b", TARGET, VARIABLES, TOKENIZER)
  strategy = BestOf(num_sequences=2, reranker=reranker)
  with pytest.raises(UsageError, match="num_tokens=11 .*=b, which holds 12"):
    generate(strategy, num_tokens=11)
  ngram = NGram(V, 2, None)
  variables = ngram.init(jax.random.key(0), jnp.zeros((1, 1), int))
  with pytest.raises(UsageError, match="compares hidden vectors"):
    TextSampler(ngram, TOKENIZER).generate(
      variables, "a", strategy=Contrastive()
    )
