# SPDX-License-Identifier: Apache-2.0
"""Sampling parameters as logits processors."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.data.tokenizers import CharacterTokenizer, WordTokenizer
from lmjax.decoding import logits_processors
from lmjax.decoding.logits_processors import Greedy, Prompt, Temperature, chain
from lmjax.errors import UsageError
from lmjax.generation.sampling_params import SamplingParams

EOS = CharacterTokenizer.eos_id

TOKENIZER = CharacterTokenizer.train(["abcde "], 0, 1, False)
ALL = dict(
  num_tokens=7,
  num_samples=2,
  seed=3,
  stop=("zz",),
  control_code="poem",
  temperature=0.5,
  top_k=4,
  top_p=0.9,
  min_p=0.01,
  typical_p=0.95,
  epsilon_cutoff=0.001,
  eta_cutoff=0.002,
  mirostat_tau=3.0,
  mirostat_eta=0.2,
  repetition_penalty=1.2,
  presence_penalty=0.3,
  frequency_penalty=-0.2,
  no_repeat_ngram_size=3,
  min_tokens=2,
  logit_bias=("a=-2.5", " =1"),
  bad_words=("abc", "e"),
  forced="cab",
)


def names(chosen):
  return [type(each).__name__ for each in chosen]


def token(text):
  (token,) = TOKENIZER.encode(text).tolist()
  return token


def test_each_setting_is_one_that_cases_here_change():
  fields = {
    field.name: field.default for field in dataclasses.fields(SamplingParams)
  }
  assert fields.keys() == ALL.keys()
  assert all(ALL[name] != default for name, default in fields.items())


def test_defaults_draw_from_the_model_as_it_is():
  assert SamplingParams().logits_processors(TOKENIZER) == (Temperature(1.0),)


def test_filters_are_in_the_order_that_their_room_states():
  chosen = names(SamplingParams(**ALL).logits_processors(TOKENIZER))
  table = [
    line
    for line in logits_processors.__doc__.splitlines()
    if line[:5].strip().isdigit()
  ]
  order = [
    word
    for word in " ".join(table).replace(",", " ").split()
    if word in logits_processors.__all__
  ]
  of_others = ("SuppressTokens", "Automaton", "Expert", "Classifier", "Greedy")
  assert len(table) == 9 and len(set(order)) == len(order)
  assert chosen == [name for name in order if name not in of_others]


def test_temperature_zero_leaves_nothing_to_truncate():
  sampling = SamplingParams(
    temperature=0, top_k=3, mirostat_tau=2.0, min_tokens=1
  )
  assert names(sampling.logits_processors(TOKENIZER)) == ["MinLength", "Greedy"]
  assert SamplingParams(temperature=0.0).logits_processors(TOKENIZER) == (
    Greedy(),
  )


def left(sampling, prompt, tokenizer=TOKENIZER):
  logits_processor = chain(sampling.logits_processors(tokenizer))
  tokens = jnp.array([tokenizer.encode(prompt)])
  size = tokenizer.vocab_size
  state = logits_processor.start(Prompt(tokens, jnp.array([0])), size)
  return np.array(logits_processor(jnp.zeros((1, size)), state)[0])


def test_texts_become_tokens():
  bias = left(SamplingParams(logit_bias=("a=-2.5", " =1")), "a")
  assert bias[token("a")] == -2.5 and bias[token(" ")] == 1.0
  assert np.count_nonzero(bias) == 2
  assert SamplingParams(logit_bias=("==1",)).logit_bias == ("==1",)
  banned = np.isinf(left(SamplingParams(bad_words=("abc", "e")), "cab"))
  assert set(np.flatnonzero(banned)) == {token("c"), token("e")}
  assert np.flatnonzero(left(SamplingParams(forced="dab"), "a") == 0) == token(
    "d"
  )
  assert (
    np.flatnonzero(np.isinf(left(SamplingParams(min_tokens=1), "a"))) == EOS
  )


def test_words_are_banned_with_the_space_before_them_and_unknown_ones_are_not():
  """A word that the tokenizer does not know is never written."""
  tokenizer = WordTokenizer.train(["the cat sat ."], 0, 1, False)
  assert not SamplingParams(bad_words=("dog", "the dog")).logits_processors(
    tokenizer
  )[:-1]
  banned = np.isinf(
    left(SamplingParams(bad_words=("the cat",)), "the", tokenizer)
  )
  assert np.flatnonzero(banned) == tokenizer.encode("cat")
  spaced, _ = SamplingParams(bad_words=("b",)).logits_processors(TOKENIZER)
  assert {tuple(word) for word in spaced.words.tolist()} == {
    (-1, token("b")),
    (token(" "), token("b")),
  }


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, True])
def test_what_is_no_number_or_text_is_refused(name, value):
  with pytest.raises(UsageError, match=name):
    SamplingParams(**{name: value})


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("top_k", 1.5),
    ("top_k", -1),
    ("temperature", "hot"),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("typical_p", 0.0),
    ("epsilon_cutoff", 1.0),
    ("eta_cutoff", 1.0),
    ("mirostat_tau", -1.0),
    ("mirostat_eta", 0.0),
    ("repetition_penalty", 0.0),
    ("no_repeat_ngram_size", -1),
    ("no_repeat_ngram_size", 65),
    ("min_tokens", -1),
    ("min_tokens", 2**31),
    ("temperature", 1e-50),
    ("repetition_penalty", 1e-300),
    ("presence_penalty", -1e300),
    ("bad_words", "abc"),
    ("bad_words", ("",)),
    ("bad_words", (3,)),
    ("logit_bias", ("a",)),
    ("logit_bias", ("=3",)),
    ("logit_bias", ("a=nan",)),
    ("logit_bias", ("a=1e300",)),
    ("logit_bias", ("a=b",)),
    ("forced", ("a",)),
  ],
)
def test_wrong_settings_are_sentences(name, value):
  with pytest.raises(UsageError, match=f"^{name}=.* must be .*[.]$"):
    SamplingParams(**{name: value})


@pytest.mark.parametrize(
  ("setting", "message"),
  [
    (dict(logit_bias=("ab=1",)), "must name one token, but it has 2"),
    (dict(logit_bias=("z=1",)), "'z' is not in the vocabulary"),
    (dict(forced="az"), "'az' is not in the vocabulary"),
  ],
)
def test_texts_that_the_model_does_not_know_are_sentences(setting, message):
  with pytest.raises(UsageError, match=message):
    SamplingParams(**setting).logits_processors(TOKENIZER)
