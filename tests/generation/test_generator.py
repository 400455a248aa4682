# SPDX-License-Identifier: Apache-2.0
"""Requests of any length in one batch draw what each draws alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.config.finalize import finalize
from lmjax.config.model_keys import DEFAULT_TASKS
from lmjax.data.tokenizers import Tokenizer
from lmjax.decoding.logits_processors import (
  Greedy,
  SuppressTokens,
  Temperature,
  chain,
)
from lmjax.errors import UsageError
from lmjax.generation.generator import ModelBinder
from lmjax.generation.requests import Request, bucket, bucket_rows
from lmjax.generation.sample_generator import SampleGenerator
from lmjax.models import MODELS
from lmjax.task_specs.build import build_model

PAD = Tokenizer.pad_id
EOS = Tokenizer.eos_id

V = 13
FAMILIES = [name for name in MODELS if name not in DEFAULT_TASKS]
ALWAYS = ("ngram", "lstm")


@pytest.fixture(scope="module")
def make(tiny_config):
  """Make a generator of a family and variables with some life in them."""

  def make(family, stop_tokens=(EOS,)):
    config = finalize(tiny_config(family))
    model = build_model(config, vocab_size=V)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 1), int))
    if family == "ngram":
      text = np.random.default_rng(0).integers(4, V, 400)
      names = [chr(97 + token) for token in range(V)]
      variables = model.estimate(text, np.array([0]), names)
    else:
      keys = iter(jax.random.split(jax.random.key(5), 99))
      variables = jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape),
        variables,
      )
    binder = ModelBinder(model, caches_layout=True)
    return SampleGenerator(binder, PAD, stop_tokens), variables

  return make


@pytest.fixture(scope="module")
def lstm(make):
  return make("lstm")


def texts(generator, variables, requests, logits_processor=None, **options):
  """Sample all tokens of each request."""
  sampled = [[] for _ in requests]
  for chunks, _ in generator.stream(
    variables,
    requests,
    logits_processor or chain([Temperature(1.0)]),
    **options,
  ):
    for text, chunk in zip(sampled, chunks, strict=True):
      text += chunk.tokens
  return sampled


REQUESTS = [
  Request(np.array([4, 5, 6, 7, 8]), 12, seed=1),
  Request(np.array([9]), 3, seed=1),
  Request(np.array([9, 4]), 12, seed=2, sample=3),
]


@pytest.mark.parametrize(
  "family",
  [
    family if family in ALWAYS else pytest.param(family, marks=pytest.mark.slow)
    for family in FAMILIES
  ],
)
def test_together_is_alone_and_some_at_a_time_is_all_at_once(family, make):
  generator, variables = make(family, stop_tokens=())
  together = texts(generator, variables, REQUESTS)
  assert [len(text) for text in together] == [12, 3, 12]
  assert texts(generator, variables, REQUESTS, chunk_size=5) == together
  turned = texts(generator, variables, REQUESTS[::-1])
  assert turned[::-1] == together
  for request, text in zip(REQUESTS, together, strict=True):
    assert texts(generator, variables, [request]) == [text]


def test_seeds_and_samples_draw_their_own(lstm):
  generator, variables = lstm
  prompt = np.array([4, 5])
  requests = [
    Request(prompt, 9, seed, sample) for seed in (0, 1) for sample in (0, 1)
  ]
  sampled = texts(
    generator, variables, requests, chain([SuppressTokens((EOS,))])
  )
  assert len({tuple(text) for text in sampled}) == 4


def test_pieces_say_how_texts_end(lstm):
  generator, variables = lstm
  requests = [Request(np.array([4]), 20, seed) for seed in range(8)]
  ends = {}
  stream = generator.stream(variables, requests, chain([]), chunk_size=7)
  for chunks, _ in stream:
    for index, piece in enumerate(chunks):
      assert len(piece.tokens) == len(piece.log_probs)
      assert EOS not in piece.tokens[:-1]
      if piece.finish_reason == "stop" and index not in ends:
        assert piece.tokens[-1] == EOS
      if piece.finish_reason:
        ends.setdefault(index, piece.finish_reason)
  assert set(ends) == set(range(8)) and set(ends.values()) == {"stop", "length"}


def test_who_is_told_to_stop_draws_no_more(lstm):
  generator, variables = lstm
  requests = [Request(np.array([4]), 20, seed) for seed in range(2)]
  sampled = texts(
    generator,
    variables,
    requests,
    chain([Greedy()]),
    chunk_size=3,
    is_done=lambda pieces: [True, False],
  )
  assert len(sampled[0]) <= 3 < len(sampled[1])


def test_a_code_is_read_again_in_front_of_what_a_context_keeps(make):
  """Greedy, every token from the whole window; a row without a code beside."""
  generator, variables = make("transformer")
  model = generator._binder.model
  control_code, prompt, kept = 3, [5, 6, 7], model.max_context // 2
  requests = [
    Request(np.array([control_code, *prompt]), 20, control_code=control_code),
    Request(np.array([control_code, *prompt]), 20),
  ]
  logits_processor = chain([SuppressTokens((EOS,)), Greedy()])

  @jax.jit
  def best(tokens_1T, number):
    hidden, _ = model.apply(variables, tokens_1T)
    logits_TV = model.apply(variables, hidden, method="logits")[0]
    return jnp.argmax(logits_TV[number - 1].at[EOS].set(-jnp.inf))

  for request, sampled in zip(
    requests,
    texts(generator, variables, requests, logits_processor),
    strict=True,
  ):
    seq_len = request.tokens.tolist()
    for token in sampled:
      if len(seq_len) > model.max_context:
        front = (
          seq_len[-kept:][:1]
          if request.control_code < 0
          else [request.control_code]
        )
        seq_len = front + seq_len[-kept:][1:]
      later = [0] * (model.max_context - len(seq_len))  # which no token sees
      assert token == best(jnp.array([seq_len + later]), len(seq_len))
      seq_len.append(token)


def test_log_probs_are_the_models_own_whatever_is_drawn_by(lstm):
  generator, variables = lstm
  request = Request(np.array([4, 5]), 1)

  def sample(*processors):
    return generator.complete(variables, [request], chain(processors)).chunks

  (piece,) = sample(Greedy())
  (other,) = sample(Temperature(9.0))
  assert piece.log_probs[0] >= other.log_probs[0]
  assert sample(Temperature(0.01))[0].log_probs == piece.log_probs


def test_statistics_count_prompt_and_new_tokens(lstm):
  generator, variables = lstm
  chunks, stats = generator.complete(variables, REQUESTS, chain([]))
  assert stats.prompt_tokens == 8
  assert stats.new_tokens == sum(len(chunk.tokens) for chunk in chunks)
  assert "tokens/s" in str(stats) and stats.first_seconds > 0


def test_sizes_are_few_and_large_enough():
  sizes = [bucket(length) for length in range(1, 5000)]
  assert all(size >= length for length, size in enumerate(sizes, 1))
  assert sizes == sorted(sizes) and len(set(sizes)) < 40
  assert all(bucket(size) == size for size in sizes)
  assert all(
    size <= 1.34 * length for length, size in enumerate(sizes, 1) if length > 32
  )
  assert [bucket_rows(n) for n in (1, 2, 3, 5, 64)] == [1, 2, 4, 8, 64]


def test_nothing_to_draw_is_a_sentence(lstm):
  generator, variables = lstm
  with pytest.raises(UsageError, match="num_tokens=0 must be at least 1"):
    generator.complete(variables, [Request(np.array([4]), 0)], chain([]))
