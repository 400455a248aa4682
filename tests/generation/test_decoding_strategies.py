# SPDX-License-Identifier: Apache-2.0
"""Ways to search for texts, from prompts to texts, with models of two kinds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.data.tokenizers import BOS, EOS, CharacterTokenizer
from lmjax.decoding.filters import Ban, Greedy, chain
from lmjax.errors import UsageError
from lmjax.generation.best_of_generator import (
  BestOf,
  by_log_probs,
  by_model,
  by_themselves,
)
from lmjax.generation.continuation_scorer import ContinuationScorer
from lmjax.generation.decoding_strategy import AuxiliaryModel, Search
from lmjax.generation.generator import Generator, Request
from lmjax.generation.minimum_bayes_risk import UTILITIES, expected_utilities
from lmjax.generation.text_sampler import TextSampler, no_text
from lmjax.models.ngram import NGram
from tests.tiny_models import draw, encoder_decoder, recurrent, transformer

TOKENIZER = CharacterTokenizer.train(["abc"], 0, 1, False)
V, CONTEXT = TOKENIZER.vocab_size, 12
TARGET = transformer(
  V, num_layers=1, positions="learned", max_context=CONTEXT, norm="rms"
)
OTHER = recurrent("lstm", V, num_layers=1)
VARIABLES, OTHERS = (draw(m, jnp.zeros((1, 1), int)) for m in (TARGET, OTHER))
HELPER = AuxiliaryModel("--draft_workdir=lstm", OTHER, OTHERS, TOKENIZER)
PROMPTS = ["ab", "cabac"]
NEVER = no_text(TOKENIZER)


def sampler(**settings):
  return TextSampler(TARGET, TOKENIZER, search=Search(**settings))


def write(number=1, num_tokens=6, filters=(), **settings):
  ask = sampler(**settings)
  requests = ask.requests(PROMPTS, num_tokens, number)
  return ask.draw(VARIABLES, requests, filters), ask.timing


@pytest.fixture(scope="module")
def greedy():
  return write(filters=[Greedy()])[0]


def test_a_wide_beam_finds_the_best_of_all_texts():
  number, num_tokens = 3, 2
  found, _ = write(number, num_tokens, beam_size=16, early_stopping="never")
  letters = [t for t in range(V) if t not in (*NEVER, EOS)]
  score = ContinuationScorer(TARGET)
  ended = [[EOS], *([t, EOS] for t in letters)]
  for row, prompt in enumerate(PROMPTS):
    requests = [Request(TOKENIZER.encode(prompt), num_tokens)] * len(ended)
    totals = [sum(x) for x in score(VARIABLES, requests, ended)]
    for place, best in enumerate(np.argsort(totals)[::-1][:number]):
      text = found[number * row + place]
      assert text.tokens == ended[best][:-1] and text.finish_reason == "stop"
      assert text.score == pytest.approx(totals[best], abs=1e-4)


def test_samples_are_empty_where_a_beam_has_no_more_texts():
  found, _ = write(6, 1, beam_size=8)
  for row in range(len(PROMPTS)):
    texts = [text.text for text in found[6 * row : 6 * row + 6]]
    assert sorted(texts) == ["", "", "", "a", "b", "c"]
    assert texts[4:] == ["", ""]
    assert [x.score is None for x in found[6 * row :][:6]] == [False] * 4 + [
      True
    ] * 2


def test_a_prompt_asked_twice_gets_the_best_text_twice():
  ask = sampler(beam_size=3)
  requests = ask.requests(["ab", "cabac", "ab"], 6, 2)
  sampled = [text.tokens for text in ask.draw(VARIABLES, requests, [])]
  assert sampled[:2] == sampled[4:] and sampled[0] != sampled[1]


def test_time_ends_a_text_with_what_was_held_back():
  filters, stop_strings = (
    [Ban((EOS,)), Greedy()],
    ["a" * 99, "b" * 99, "c" * 99],
  )
  ask = sampler()
  requests = ask.requests(["ab"], 40)
  parts = [*ask.stream(VARIABLES, requests, filters, stop_strings, 0.0)]
  (sampled,) = ask.draw(VARIABLES, requests, filters, stop_strings, 0.0)
  assert sampled.text == TOKENIZER.decode(sampled.tokens)
  assert "".join(new for (new,) in parts) == sampled.text
  assert len(sampled.tokens) < 40 and sampled.finish_reason == "length"


def test_continuations_are_scored_as_they_are_drawn(greedy):
  requests = [Request(TOKENIZER.encode(prompt), 6) for prompt in PROMPTS]
  texts = [text.tokens for text in greedy]
  for score, text in zip(
    ContinuationScorer(TARGET)(VARIABLES, requests, texts), greedy, strict=True
  ):
    np.testing.assert_allclose(score, text.log_probs, atol=1e-5)


@pytest.mark.parametrize("settings", [dict(draft=HELPER), dict(num_draft=2)])
def test_speculation_changes_no_greedy_text(greedy, settings):
  lookup = "draft" not in settings
  found, timing = write(filters=[Greedy()], prompt_lookup=lookup, **settings)
  assert [text.tokens for text in found] == [text.tokens for text in greedy]
  assert [text.finish_reason for text in found] == [
    text.finish_reason for text in greedy
  ]
  assert 1 <= timing.tokens_per_call <= 5


def test_contrastive_search_of_one_candidate_is_greedy(greedy):
  found, _ = write(contrastive_k=1)
  assert [text.tokens for text in found] == [text.tokens for text in greedy]
  for text, other in zip(found, greedy, strict=True):
    np.testing.assert_allclose(text.log_probs, other.log_probs, atol=1e-5)


def test_the_best_of_several_texts_is_kept():
  number, rows = 5, range(len(PROMPTS))
  generator, logits_processor = Generator(TARGET), Ban(NEVER)
  requests = sampler().requests(PROMPTS, 6)
  many = [r._replace(sample=i) for r in requests for i in range(number)]
  (sampled,) = generator(VARIABLES, many, logits_processor)
  texts = [piece.tokens for piece in sampled]
  by_other = ContinuationScorer(OTHER)(OTHERS, many, texts)
  decoded, utility = [*map(TOKENIZER.decode, texts)], UTILITIES["chrf"]()
  alike = [
    np.mean([utility(one, other) for other in decoded[row : row + number]])
    for row in (number * row for row in rows)
    for one in decoded[row : row + number]
  ]
  chosen = []
  for judge, scores in (
    (by_log_probs(True), [np.mean(piece.log_probs) for piece in sampled]),
    (by_model(OTHER, OTHERS, True), [np.mean(own) for own in by_other]),
    (by_model(OTHER, OTHERS, False), [np.sum(own) for own in by_other]),
    (by_themselves(TOKENIZER.decode, utility), alike),
  ):
    (found,) = BestOf(generator, number, judge)(
      VARIABLES, requests, logits_processor
    )
    places = np.reshape(scores, (-1, number)).argmax(axis=1)
    best = [number * row + places[row] for row in rows]
    assert [x._replace(score=None) for x in found] == [sampled[i] for i in best]
    told = [piece.score for piece in found]
    np.testing.assert_allclose(told, [scores[i] for i in best], rtol=1e-4)
    chosen += [*places]
  assert len(set(chosen)) > 2  # judges differ
  asked, _ = write(best_of=number, reranker=HELPER, rerank_per_token=False)
  places = np.reshape([sum(own) for own in by_other], (-1, number)).argmax(1)
  for row in rows:
    assert asked[row].text == decoded[number * row + places[row]]


@pytest.mark.parametrize("settings", [dict(), dict(reranker=HELPER)])
def test_the_best_is_chosen_among_texts_that_stops_have_cut(settings):
  number, stop_strings = 6, ["ca"]
  requests = sampler().requests(["ac"], 8, number)
  sampled = sampler().draw(VARIABLES, requests, [Ban((EOS,))], stop_strings)
  scores = [text.log_probs for text in sampled]
  if settings:
    tokens = [text.tokens for text in sampled]
    scores = ContinuationScorer(OTHER)(OTHERS, requests, tokens)
  best = sampled[int(np.argmax([*map(np.mean, scores)]))]
  assert len({len(text.tokens) for text in sampled}) > 2
  ask = sampler(best_of=number, **settings)
  (found,) = ask.draw(VARIABLES, requests[:1], [Ban((EOS,))], stop_strings)
  assert found.tokens == best.tokens and found.text == best.text


@pytest.mark.slow
def test_sources_go_with_their_texts():
  """Every way but drawing, for texts that are written for others."""
  model = encoder_decoder(V, num_layers=1, num_encoder_layers=1)
  variables = draw(model, jnp.zeros((1, 1), int))
  sources = [np.array([4, 5, 6, 4]), np.array([6])]
  requests = [Request(np.array([BOS]), 8, source=source) for source in sources]
  ways, texts = dict(contrastive_k=2, contrastive_alpha=0.0), []
  endless = Ban((*NEVER, EOS))
  for settings in (dict(), ways, dict(prompt_lookup=True)):
    generator = Search(**settings).generator(model, TOKENIZER)
    (pieces,) = generator(variables, requests, chain([endless, Greedy()]))
    texts.append([piece.tokens for piece in pieces])
  assert texts[0] == texts[1] == texts[2]
  assert texts[0][0] != texts[0][1]
  beam = Search(beam_size=3).generator(model, TOKENIZER)
  (found,) = beam(variables, requests, endless)
  (turned,) = beam(variables, requests[::-1], endless)
  assert [x.tokens for x in found] == [x.tokens for x in turned[::-1]]
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
  ("settings", "message"),
  [
    (dict(beam_size=-1), "beam_size=-1 must be at least 0"),
    (dict(coverage_penalty=0.2), "coverage_penalty=0.2 is of beams; give beam"),
    (dict(beam_size=4, num_groups=3), "num_groups=3 must divide beam_size=4"),
    (dict(num_groups=2), "num_groups=2 must divide beam_size=0"),
    (dict(length_penalty=0.5), "give beam_size"),
    (dict(beam_size=2, length_penalty=float("nan")), "=nan must be at least 0"),
    (dict(beam_size=2, length_penalty=1e6), "at most 10"),
    (
      dict(beam_size=2, num_groups=2, diversity_penalty=float("inf")),
      "diversity_penalty=inf must be",
    ),
    (dict(beam_size=2, diversity_penalty=0.5), "give num_groups"),
    (dict(beam_size=2, contrastive_k=3), "beam_size or contrastive_k"),
    (dict(best_of=2, prompt_lookup=True), "best_of or prompt_lookup"),
    (dict(best_of=2, mbr="chrf", reranker=HELPER), "mbr or reranker"),
    (dict(contrastive_k=2, contrastive_alpha=1.5), "from 0 to 1"),
    (dict(mbr="chrf"), "say by best_of"),
    (dict(best_of=2, mbr="ter"), "chrf or bleu"),
    (dict(num_draft=0), "num_draft=0"),
  ],
)
def test_wrong_settings_are_sentences(settings, message):
  with pytest.raises(UsageError, match=message):
    Search(**settings)


def test_what_cannot_be_searched_is_said():
  other = CharacterTokenizer.train(["abcd"], 0, 1, False)
  with pytest.raises(UsageError, match="draft_workdir=lstm has another token"):
    TextSampler(TARGET, other, search=Search(draft=HELPER))
  with pytest.raises(UsageError, match="num_tokens=2147483648 must be at most"):
    write(num_tokens=2**31)
  with pytest.raises(UsageError, match="num_samples=3 must not exceed"):
    write(3, beam_size=2)
  with pytest.raises(UsageError, match="beam_size=2 .* give temperature=1"):
    sampler(beam_size=2)(VARIABLES, "a", temperature=0)
  with pytest.raises(UsageError, match="context of 12"):
    write(num_tokens=9, beam_size=2)
  with pytest.raises(UsageError, match="coverage_penalty=0.2 is of texts that"):
    write(beam_size=2, coverage_penalty=0.2)
  reranker = AuxiliaryModel("--rerank_workdir=b", TARGET, VARIABLES, TOKENIZER)
  with pytest.raises(UsageError, match="=b has a context of 12, .*=11 more"):
    write(num_tokens=11, best_of=2, reranker=reranker)
  ngram = NGram(V, 2, None)
  ask = TextSampler(ngram, TOKENIZER, search=Search(contrastive_k=2))
  variables = ngram.init(jax.random.key(0), jnp.zeros((1, 1), int))
  with pytest.raises(UsageError, match="compares hidden vectors"):
    ask(variables, "a")
