# SPDX-License-Identifier: Apache-2.0
"""Sources in, targets out, by the loop that goes on from prompts."""

import functools

import jax
import numpy as np
import pytest

from lmjax.data.tokenizers import CharacterTokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UsageError
from lmjax.generation.decoding_strategies import Beam
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.seq2seq_sampler import Seq2SeqSampler
from lmjax.tasks.seq2seq import Seq2Seq
from tests.helpers.variables import random_variables
from tests.tiny_models import VOCAB_SIZE, built, encoder_decoder

PAD = CharacterTokenizer.pad_id
UNK = CharacterTokenizer.unk_id
BOS = CharacterTokenizer.bos_id
EOS = CharacterTokenizer.eos_id

KNOWN = Vocabularies(
  {
    "target": CharacterTokenizer.train(["uvwxyza"], 0, 1, False),
    "source": CharacterTokenizer.train(["abcdefg"], 0, 1, False),
  }
)
SOURCES = ["abc", "gfedcba", "d"]
NUM_TOKENS = 6
MODELS = {
  "transformer": encoder_decoder(
    num_layers=1,
    num_encoder_layers=1,
    max_context=8,
    source_vocab_size=VOCAB_SIZE,
    tie_embeddings=False,
  ),
  "recurrent": built(
    "recurrent_seq2seq", cell="gru", embedding_width=6, num_encoder_layers=1
  ),
}


@functools.cache
def made(name):
  """Make what draws targets, and variables so large that sources matter."""
  model = MODELS[name]
  variables = random_variables(model, np.zeros((1, 2), int))
  return Seq2SeqSampler(model, KNOWN), jax.tree.map(lambda x: 3 * x, variables)


def sampled(name, sources, **sampling):
  sampler, variables = made(name)
  params = SamplingParams(num_tokens=NUM_TOKENS, **sampling)
  return sampler.generate(variables, sources, params).completions


@pytest.mark.parametrize("name", MODELS)
def test_the_most_likely_targets_are_those_of_greedy_search(name):
  """Of sources of different lengths, padded to other lengths."""
  found_BT = searched(name, beam_size=1, coverage_penalty=0.0)
  together = sampled(name, SOURCES, temperature=0.0)
  assert len({text.text for text in together}) > 1
  check_same(together, found_BT)


def test_beams_cover_sources_as_those_of_the_task_do():
  """With a model that finds what is banned unlikely: scores leave it in."""
  name, settings = "transformer", dict(beam_size=3, coverage_penalty=2.0)
  model, variables = MODELS[name], made(name)[1]
  found = Seq2SeqSampler(model, KNOWN).generate(
    variables,
    SOURCES,
    SamplingParams(num_tokens=NUM_TOKENS),
    strategy=Beam(**settings),
  )
  found_BT = searched(name, **settings)
  check_same(found.completions, found_BT)
  plain = searched(name, beam_size=3, coverage_penalty=0.0)
  assert not np.array_equal(found_BT, plain)


def test_without_attention_nothing_is_covered():
  model = built("recurrent_seq2seq", cell="gru", attention="none")
  strategy = Beam(beam_size=2, coverage_penalty=0.2)
  sampler = Seq2SeqSampler(model, KNOWN)
  variables = random_variables(model, np.zeros((1, 2), int))
  with pytest.raises(UsageError, match="needs a model with attention over"):
    sampler.generate(variables, "ab", strategy=strategy)


def searched(name, **settings):
  """Return the best target of each source, as evaluation finds it, [B, T]."""
  task = Seq2Seq(
    MODELS[name],
    np.ones(VOCAB_SIZE),
    "character",
    stateful=False,
    length_penalty=0.0,
    num_return_sequences=1,
    max_target_length=NUM_TOKENS,
    first_token=BOS,
    stop_token=EOS,
    pad_token=PAD,
    banned=(PAD, UNK, BOS),
    **settings,
  )
  lengths_B = np.array(list(map(len, SOURCES))) + 1
  mask_BS = np.arange(max(lengths_B)) < lengths_B[:, None]
  sources_BS = np.zeros(mask_BS.shape, int)
  for row, source in zip(sources_BS, SOURCES, strict=True):
    tokens = np.append(KNOWN.tokenizers["source"].encode(source), EOS)
    row[: len(tokens)] = tokens
  batch = dict(sources=sources_BS, source_mask=mask_BS)
  made_BNT = jax.jit(task.predict)(made(name)[1], batch)["targets"]
  return np.array(made_BNT[:, 0])


def check_same(texts, found_BT):
  for text, found_T in zip(texts, found_BT, strict=True):
    best = [*text.tokens, EOS][:NUM_TOKENS]
    np.testing.assert_array_equal(found_T[: len(best)], best)
    assert text.text == KNOWN.tokenizers["target"].decode(text.tokens)


def test_what_is_no_source_is_a_sentence():
  sampler, _ = made("transformer")
  for source, message in (
    ("", "source text is empty"),
    ("abcdefga", "source has 9 tokens .* holds 8; shorten the source"),
  ):
    with pytest.raises(UsageError, match=message):
      sampler.requests([source], SamplingParams())
  assert (
    sampler.requests(["a"], SamplingParams(num_tokens=99))[0].num_tokens == 8
  )
