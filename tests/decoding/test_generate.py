# SPDX-License-Identifier: Apache-2.0
"""Cached generation against one that reads everything again, and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.data.tokenizers import CharacterTokenizer
from lmjax.decoding.decoding_model import DecodingModel
from lmjax.decoding.generate import decode, prefill
from lmjax.decoding.logits_processors import (
  Greedy,
  LogitsProcessor,
  Prompt,
  chain,
)
from lmjax.errors import UsageError
from lmjax.generation.generator import ModelBinder
from lmjax.generation.requests import Request
from lmjax.generation.sample_generator import SampleGenerator
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import TextSampler
from lmjax.models.neural_cache import NeuralCache
from tests.helpers.frequencies import assert_frequencies
from tests.helpers.variables import random_variables
from tests.tiny_models import recurrent, transformer

V, CONTEXT = 11, 8
NEVER, PAD = -1, 0


def transformer_at(positions):
  return transformer(
    V, positions=positions, max_context=CONTEXT, norm="rms", num_kv_heads=2
  )


MODELS = {
  "lstm": recurrent("lstm", V),
  "learned": transformer_at("learned"),
  "rotary": transformer_at("rotary"),
}


@pytest.fixture(
  scope="module",
  params=["lstm", "rotary", pytest.param("learned", marks=pytest.mark.slow)],
)
def model(request):
  model = MODELS[request.param]
  variables = model.init(jax.random.key(0), jnp.zeros((1, 1), int))
  keys = iter(jax.random.split(jax.random.key(5), 99))
  variables = jax.tree.map(
    lambda leaf: leaf + 0.7 * jax.random.normal(next(keys), leaf.shape),
    variables,
  )
  return model, variables


class Watch(LogitsProcessor):
  """Choose nothing; call back with the logits."""

  def __init__(self, callback):
    self.callback = callback

  def __call__(self, logits, state=()):
    jax.debug.callback(self.callback, logits, ordered=True)
    return logits


def draw(
  model,
  variables,
  prompt,
  keys,
  num_tokens,
  logits_processor=None,
  stop=NEVER,
  starts=None,
  at_a_time=0,
):
  """Sample in one call, or in calls of so many tokens each."""
  bound = DecodingModel(model, variables)
  logits_processor = logits_processor or chain([])
  starts = np.zeros(len(keys), int) if starts is None else starts
  max_context = model.max_context

  @jax.jit
  def begin(prompt, starts):
    return prefill(
      bound,
      Prompt(prompt, starts),
      logits_processor,
      max_context or 0,
      max_context,
    )

  @jax.jit
  def resume(decode_state, keys):
    return decode(
      bound,
      decode_state,
      keys,
      jnp.full(len(keys), num_tokens),
      at_a_time or num_tokens,
      logits_processor,
      stop_tokens=(stop,),
      pad_token=PAD,
      max_context=max_context,
    )

  decode_state, parts = begin(prompt, starts), []
  for _ in range(0, num_tokens, at_a_time or num_tokens):
    sampled, decode_state = resume(decode_state, keys)
    parts.append(np.array(sampled.tokens_BN))
  return np.concatenate(parts, axis=1)[:, :num_tokens]


def without_cache(model, variables, prompt, num_tokens):
  """Greedy, every token from the whole window; the law of full contexts."""
  longest = model.max_context or len(prompt) + num_tokens

  @jax.jit
  def read(tokens, last):  # padding behind the last token changes nothing
    hidden, _ = model.apply(variables, tokens)
    return model.apply(variables, hidden[:, last], method="logits")

  window, sampled = list(prompt), []
  for _ in range(num_tokens):
    padded = np.pad(window, (0, longest - len(window)))[None]
    sampled.append(int(jnp.argmax(read(padded, len(window) - 1)[0])))
    window.append(sampled[-1])
    if model.max_context is not None and len(window) > model.max_context:
      window = window[-(model.max_context // 2) :]
  return sampled


@pytest.mark.parametrize("prompt_length", [1, 3, CONTEXT])
def test_cached_equals_uncached_beyond_the_context(model, prompt_length):
  model, variables = model
  prompt = np.arange(2 * prompt_length).reshape(2, -1) % V
  keys = jax.random.split(jax.random.key(0), 2)
  num_tokens = 23
  sampled = draw(model, variables, prompt, keys, num_tokens, Greedy())
  for row in range(2):
    expected = without_cache(model, variables, prompt[row], num_tokens)
    assert sampled[row].tolist() == expected


@pytest.mark.parametrize("size", [3, 40])
def test_a_cache_goes_on_where_the_context_is_read_again(size):
  """All of the text is in it, with the hidden vectors last made of each token.

  Of a size below that of what is read again, and above that of all.
  """
  theta, share, num_tokens = 0.3, 0.6, 15
  inner, prompt = MODELS["learned"], np.array([[1, 2, 3], [4, 4, 5]])
  model = NeuralCache(inner, size, theta, share)
  variables, seen = random_variables(inner, jnp.zeros((1, 1), int)), []
  keys = jax.random.split(jax.random.key(0), 2)
  watch = Watch(seen.append)
  sampled = draw(model, variables, prompt, keys, num_tokens, watch)
  jax.effects_barrier()

  @jax.jit
  def read(tokens):
    hidden, _ = inner.apply(variables, tokens)
    logits = inner.apply(variables, hidden, method="logits")
    return hidden[0], jax.nn.softmax(logits)[0]

  for row in range(2):
    text = [*prompt[row], *sampled[row]]
    vectors, start = np.zeros((len(text), 8)), 0
    for step, length in enumerate(range(3, len(text))):
      if length - start > CONTEXT:
        start = length - CONTEXT // 2
      window = np.pad(text[start:length], (0, CONTEXT - length + start))
      hidden, probs = map(np.array, read(window[None]))
      vectors[start:length] = hidden[: length - start]
      found, last = np.zeros(V), length - 1
      for i in range(max(last - size, 0), last):
        found[text[i + 1]] += np.exp(theta * vectors[last] @ vectors[i])
      mixed = (1 - share) * probs[last - start] + share * found / found.sum()
      np.testing.assert_allclose(np.exp(seen[step][row]), mixed, atol=1e-5)


def test_a_row_does_not_depend_on_its_batch(model):
  model, variables = model
  prompt = np.array([[1, 2], [3, 4], [5, 6]])
  keys = jax.random.split(jax.random.key(1), 3)
  together = draw(model, variables, prompt, keys, 12)
  for rows in ([2], [1, 0]):
    rows = np.array(rows)
    alone = draw(model, variables, prompt[rows], keys[rows], 12)
    np.testing.assert_array_equal(together[rows], alone)


def test_more_tokens_go_on_from_fewer(model):
  model, variables = model
  prompt, keys = np.array([[1, 2]]), jax.random.split(jax.random.key(1), 1)
  few, many = (draw(model, variables, prompt, keys, n) for n in (5, 19))
  np.testing.assert_array_equal(few[0], many[0, :5])


@pytest.mark.parametrize("at_a_time", [1, 4])
def test_tokens_at_a_time_change_nothing(model, at_a_time):
  model, variables = model
  prompt = np.array([[1, 2], [3, 4]])
  keys = jax.random.split(jax.random.key(1), 2)
  at_once, by_parts = (
    draw(model, variables, prompt, keys, 19, at_a_time=n)
    for n in (0, at_a_time)
  )
  np.testing.assert_array_equal(at_once, by_parts)


def test_padding_before_prompts_changes_nothing(model):
  """Beyond the context too, which each row reaches at a time of its own."""
  model, variables = model
  prompts = [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 1]]
  keys = jax.random.split(jax.random.key(1), 3)
  padded = np.array([[PAD] * (7 - len(p)) + p for p in prompts])
  starts = np.array([7 - len(p) for p in prompts])
  together = draw(model, variables, padded, keys, 19, starts=starts)
  for row, prompt in enumerate(prompts):
    prompt, key = np.array([prompt]), keys[row : row + 1]
    alone = draw(model, variables, prompt, key, 19)
    np.testing.assert_array_equal(together[row], alone[0])


def test_a_finished_row_is_padded(model):
  model, variables = model
  prompt = np.array([[1, 2]] * 4)
  keys = jax.random.split(jax.random.key(2), 4)
  free = draw(model, variables, prompt, keys, 20)
  stop = int(free[0, 5])
  sampled = draw(model, variables, prompt, keys, 20, stop=stop)
  ends = 0
  for row in range(4):
    where = np.flatnonzero(free[row] == stop)
    end = where[0] + 1 if len(where) else 20
    ends += len(where) > 0
    np.testing.assert_array_equal(sampled[row, :end], free[row, :end])
    np.testing.assert_array_equal(sampled[row, end:], PAD)
  assert ends


def test_the_likeliest_tokens_are_told_beside_the_drawn_one():
  model = MODELS["lstm"]
  variables = random_variables(model, jnp.zeros((1, 1), int))
  requests = [Request(np.array([1, 2]), 5, seed) for seed in (0, 1)]
  generator = SampleGenerator(ModelBinder(model), PAD, stop_tokens=())
  sampled, greedy = (
    next(
      generator.stream(
        variables, requests, chain(processors), num_top_logprobs=V
      )
    ).chunks
    for processors in ([], [Greedy()])
  )
  for piece in sampled:
    for token, log_prob, best in zip(
      piece.tokens, piece.log_probs, piece.top_logprobs, strict=True
    ):
      assert dict(best)[token] == log_prob and len(dict(best)) == V
      log_probs = [value for _, value in best]
      assert log_probs == sorted(log_probs, reverse=True)
      np.testing.assert_allclose(np.exp(log_probs).sum(), 1, rtol=1e-5)
  assert [best[0][0] for best in greedy[0].top_logprobs] == greedy[0].tokens


def test_frequencies_are_those_of_the_softmax():
  """Chi-square over 5,000 rows, for the first and the second token."""
  model = MODELS["lstm"]
  variables = model.init(jax.random.key(3), jnp.zeros((1, 1), int))
  variables = jax.tree.map(lambda leaf: leaf * 6, variables)
  rows = 5000
  keys = jax.random.split(jax.random.key(4), rows)
  sampled = draw(model, variables, np.full((rows, 1), 3), keys, 2)
  bound = DecodingModel(model, variables)
  carry = model.initial_carry(1, CONTEXT)
  logits, carry = bound.decode_step(jnp.array([3]), carry)
  first = jax.nn.softmax(logits[0])
  carries = jax.tree.map(lambda leaf: jnp.repeat(leaf, V, 0), carry)
  after, _ = bound.decode_step(jnp.arange(V), carries)
  second = first @ jax.nn.softmax(after)
  for column, probability in enumerate((first, second)):
    counts = np.bincount(sampled[:, column], minlength=V)
    assert_frequencies(counts, np.array(probability, np.float64))


@pytest.fixture(scope="module")
def sampler():
  tokenizer = CharacterTokenizer.train(["abcde"], 0, 1, False)
  tokenizer = tokenizer.with_special_tokens(("<x>", "<y>"))
  assert tokenizer.vocab_size == V
  model = MODELS["learned"]
  variables = model.init(jax.random.key(0), jnp.zeros((1, 1), int))
  return text_sampler(model, tokenizer), variables


def text_sampler(model, tokenizer):
  """Return a function from a prompt and sampling parameters to texts."""
  sampler = TextSampler(model, tokenizer)

  def sample(variables, prompt, **params):
    return sampler.generate(variables, prompt, SamplingParams(**params)).texts

  return sample


def test_text_never_holds_specials(sampler):
  sample, variables = sampler
  texts = sample(variables, "abc", num_tokens=30, num_samples=20)
  assert set("".join(texts)) <= set("abcde")


def test_samples_are_reproducible_and_differ(sampler):
  sample, variables = sampler
  first = sample(variables, "a", num_tokens=20, num_samples=3, seed=1)
  again = sample(variables, "a", num_tokens=20, num_samples=3, seed=1)
  other = sample(variables, "a", num_tokens=20, num_samples=3, seed=2)
  assert first == again and first != other and len(set(first)) == 3


def test_half_precision_is_drawn_alike_for_one_row_and_for_more():
  """Kernels are turned for several rows; XLA has no bfloat16 Aᵀ·B on a CPU."""
  tokenizer = CharacterTokenizer.train(["abcdefg"], 0, 1, False)
  model = recurrent("lstm", V, dtype=jnp.bfloat16)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 1), int))
  sample = text_sampler(model, tokenizer)
  options = dict(prompt="a", num_tokens=5, temperature=0.0)
  alone = sample(variables, num_samples=1, **options)
  assert sample(variables, num_samples=2, **options) == alone * 2


def test_temperature_zero_is_greedy(sampler):
  sample, variables = sampler
  options = dict(num_tokens=9, num_samples=2, temperature=0.0)
  texts = [sample(variables, "a", seed=seed, **options) for seed in (1, 2)]
  assert texts[0] == texts[1] and texts[0][0] == texts[0][1]


def test_settings_reach_the_draws(sampler):
  sample, variables = sampler
  texts = sample(
    variables,
    "a",
    num_tokens=12,
    num_samples=8,
    forced="cb",
    bad_words=("d",),
    no_repeat_ngram_size=2,
    min_tokens=4,
    repetition_penalty=0.8,
    mirostat_tau=2.0,
  )
  for text in texts:
    assert text.startswith("cb") and len(text) >= 4 and "d" not in text
    pairs = [*zip("a" + text, text, strict=False)]
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(prompt="a" * (CONTEXT + 1)), "context holds 8"),
    (dict(prompt="a", temperature=-1.0), "temperature"),
    (dict(prompt="a", top_k=-1), "top_k"),
    (dict(prompt="a", top_p=0.0), "top_p"),
    (dict(prompt="a", num_tokens=0), "num_tokens"),
  ],
)
def test_wrong_settings_are_sentences(sampler, options, message):
  sample, variables = sampler
  with pytest.raises(UsageError, match=message):
    sample(variables, **options)
