# SPDX-License-Identifier: Apache-2.0
import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.data.text.objectives.fill_in_the_middle import MARKS
from lmjax.data.text.objectives.masking import MASK
from lmjax.data.tokenizers import TOKENIZERS, CharacterTokenizer
from lmjax.errors import UsageError
from lmjax.generation.infilling import (
  BLANK,
  FIMInfiller,
  MaskInfiller,
  SpanInfiller,
)
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import TextSampler
from lmjax.run import Run
from lmjax.training import loop
from tests.tiny_models import encoder, encoder_decoder, transformer

EOS = CharacterTokenizer.eos_id

WORDS = "a list of cells or a cell of lists"


def make(kind, build, special_tokens, **options):
  tokenizer = TOKENIZERS[kind].train([WORDS], 0, 1, False)
  tokenizer = tokenizer.with_special_tokens(special_tokens)
  model = build(tokenizer.vocab_size, num_layers=1, **options)
  init = jax.jit(model.init)
  return model, tokenizer, init(jax.random.key(2), jnp.zeros((1, 3), int))


@functools.partial(jax.jit, static_argnums=0)
def score(model, variables, tokens_BT, **options):
  hidden, _ = model.apply(variables, tokens_BT, **options)
  return model.apply(variables, hidden, method="logits")


def go_on(model, tokenizer, variables, tokens, number, **options):
  """Take the likeliest text token each time, with all read anew."""
  padded = np.zeros((1, 20), int)
  padded[0, : len(tokens)] = tokens
  allowed, sampled = [EOS, *range(4, tokenizer.base_vocab_size)], []
  for place in range(len(tokens), len(tokens) + number):
    logits = np.array(score(model, variables, padded, **options))[0, place - 1]
    sampled.append(allowed[int(np.argmax(logits[allowed]))])
    if sampled[-1] == EOS:
      break
    padded[0, place] = sampled[-1]
  return tokenizer.decode(sampled)


@pytest.fixture(scope="module")
def masked():
  model, tokenizer, variables = make("word", encoder, (MASK,))
  return MaskInfiller(model, tokenizer), model, tokenizer, variables


def test_candidates_are_the_likeliest_words_of_the_blank(masked):
  fill, model, tokenizer, variables = masked
  filled = fill(variables, f"a {BLANK} of lists", SamplingParams(num_samples=3))
  a, of, lists = tokenizer.encode("a of lists")
  tokens = np.array([[a, tokenizer.special_token_id(MASK), of, lists]])
  logits = np.array(score(model, variables, tokens))[0, 1]
  words = range(4, tokenizer.base_vocab_size)
  chances = np.exp(logits[words]) / np.exp(logits[words]).sum()
  order = np.argsort(-chances)[:3]
  (candidates,) = filled.candidates
  for candidate, index in zip(candidates, order, strict=True):
    assert candidate.text == tokenizer.tokens[words[index]]
    np.testing.assert_allclose(candidate.probability, chances[index], rtol=1e-4)
  assert filled.texts == [f"a {candidates[0].text} of lists"]


def test_blanks_are_filled_the_surest_first(masked):
  fill, _, _, variables = masked
  text = f"{BLANK} cells {BLANK} or {BLANK}"
  by_hand = text
  while BLANK in by_hand:
    best = [c[0] for c in fill(variables, by_hand, SamplingParams()).candidates]
    surest = int(np.argmax([c.probability for c in best]))
    parts = by_hand.split(BLANK)
    left = BLANK.join(parts[: surest + 1])
    right = BLANK.join(parts[surest + 1 :])
    by_hand = left + best[surest].text + right
  assert fill(variables, text, SamplingParams()).texts == [by_hand]


def test_the_text_around_blanks_stays_as_it_is(masked):
  fill, _, _, variables = masked
  text = f"A  {BLANK} of CELLS, {BLANK}\n(or lists)  "
  before, between, behind = text.split(BLANK)
  (filled,) = fill(variables, text, SamplingParams()).texts
  assert filled.startswith(before) and filled.endswith(behind)
  assert between in filled and "<unk>" not in filled
  model, tokenizer, variables = make(
    "character", encoder_decoder, ("<span_0>", "<span_1>"), max_context=16
  )
  options = dict(temperature=0.0, num_tokens=99)
  (filled,) = SpanInfiller(model, tokenizer)(
    variables, "?" + BLANK, SamplingParams(**options)
  ).texts
  assert filled.startswith("?")
  (same,) = SpanInfiller(model, tokenizer)(
    variables, "?" + BLANK, SamplingParams(**options | dict(num_tokens=16))
  ).texts
  assert filled == same  # the context ends it


def test_bpe_blanks_stand_for_the_space_before_a_word_too(masked):
  del masked
  tokenizer = TOKENIZERS["bpe"].train([WORDS], 290, 1, False)
  tokenizer = tokenizer.with_special_tokens((MASK,))
  model = encoder(tokenizer.vocab_size)
  tokens = MaskInfiller(model, tokenizer).encode(f"a {BLANK} of")
  whole = tokenizer.encode("a list of").tolist()
  place = tokens.tolist().index(tokenizer.special_token_id(MASK))
  assert tokens[:place].tolist() == whole[:place]
  assert tokens[place + 1 :].tolist() == whole[-(len(tokens) - place - 1) :]


def test_a_middle_is_drawn_behind_its_marks():
  model, tokenizer, variables = make(
    "character", transformer, MARKS, max_context=20
  )
  fill = FIMInfiller(model, tokenizer)
  options = dict(num_tokens=9, temperature=0.0)
  (text,) = fill(variables, f"a l{BLANK} of", SamplingParams(**options)).texts
  prefix, suffix, middle = (tokenizer.special_token_id(mark) for mark in MARKS)
  tokens = [prefix, *tokenizer.encode("a l"), suffix, *tokenizer.encode(" of")]
  tokens.append(middle)
  middle = go_on(model, tokenizer, variables, tokens, 9)
  assert text == f"a l{middle} of"
  params = SamplingParams(num_tokens=99, seed=1)
  (text,) = fill(variables, f"a l{BLANK} of", params).texts
  assert len(text) <= 20 + 1 - 3  # marks and text fill the context


def test_spans_are_put_in_where_their_marks_are():
  model, tokenizer, variables = make(
    "character", encoder_decoder, ("<span_0>", "<span_1>", "<span_2>")
  )
  fill = SpanInfiller(model, tokenizer)
  sources = fill.encode(f"a {BLANK} of {BLANK}s")
  first = tokenizer.base_vocab_size
  expected = [*tokenizer.encode("a "), first, *tokenizer.encode(" of ")]
  expected += [first + 1, *tokenizer.encode("s"), EOS]
  assert sources.tolist() == expected
  sampled = [first, *tokenizer.encode("list"), first + 1]
  sampled += tokenizer.encode("cell").tolist()
  assert fill._split_fillings(sampled) == ["list", "cell", ""]
  assert fill._split_fillings(sampled[:3]) == ["li", "", ""]  # cut off
  params = SamplingParams(num_samples=2, num_tokens=7, seed=3)
  texts = fill(variables, f"a {BLANK} of {BLANK}s", params).texts
  assert len(texts) == 2 and texts[0] != texts[1]
  assert all(text.startswith("a ") and text[-1] == "s" for text in texts)
  with pytest.raises(UsageError, match="has 4 blanks ___, but .* at most 3"):
    fill.encode(BLANK * 4)


def test_a_prompt_of_a_prefix_model_is_read_in_both_directions():
  model, tokenizer, variables = make("character", transformer, ())
  sampler = TextSampler(model, tokenizer, bidirectional_prompt=True)
  params = SamplingParams(num_tokens=6, temperature=0.0)
  text = sampler.generate(variables, "a list", params).text
  prefix = (np.arange(20) < 6)[None]
  expected = go_on(
    *(model, tokenizer, variables, tokenizer.encode("a list"), 6),
    bidirectional_BT=prefix,
  )
  assert text == expected


@pytest.mark.parametrize(
  ("make_filler", "special_tokens", "text", "message"),
  [
    (MaskInfiller, (MASK,), "a list", "'a list' has no blank; write ___"),
    (MaskInfiller, (MASK,), "a" * 30 + BLANK, "context holds 16; shorten"),
    (FIMInfiller, MARKS, f"{BLANK} a {BLANK}", "has 2 blanks ___, but .* one"),
    (FIMInfiller, MARKS, "a" * 30 + BLANK, "context holds 16; shorten"),
  ],
)
def test_a_text_that_cannot_be_filled_is_a_sentence(
  make_filler, special_tokens, text, message
):
  tokenizer = CharacterTokenizer.train([WORDS], 0, 1, False)
  model = transformer(tokenizer.vocab_size + len(special_tokens))
  filler = make_filler(model, tokenizer.with_special_tokens(special_tokens))
  with pytest.raises(UsageError, match=message):
    filler.encode(text)


def test_runs_do_what_their_tasks_taught_them(
  tiny_config, text_folder, tmp_path, capsys
):
  text = {"data.source": "text", "data.path": str(text_folder)}
  config = tiny_config("encoder", **text, **{"data.tokenizer": "word"})
  config.train.num_steps, config.train.preview_every = 1, 1
  assert loop.train(config, tmp_path / "masked") == 0
  run = Run(tmp_path / "masked")
  tokens = run.experiment.corpus.stream("valid").tokens
  _, counts = np.unique(tokens, return_counts=True)
  entropy = -np.log(counts / len(tokens)) @ (counts / len(tokens))
  shown = f"unigram entropy of valid: {entropy:.4f} nats a token"
  assert shown in capsys.readouterr().err
  assert run.tokenizer.special_tokens == (MASK,)
  filled = run.fill(f"7 {BLANK} is", SamplingParams(num_samples=2))
  assert len(filled.candidates[0]) == 2 and BLANK not in filled.texts[0]
  with pytest.raises(
    UsageError, match="task=masked_lm does not generate text; use .*fill"
  ):
    run.generate("7")
  script = str(Path(__file__).parent.parent.parent / "scripts" / "fill.py")
  flags = [f"--workdir={tmp_path / 'masked'}", f"--text=7 {BLANK} is"]
  printed = subprocess.check_output(
    [sys.executable, script, *flags, "--num_samples=2"], cwd=tmp_path, text=True
  )
  lines = printed.splitlines()
  assert lines[0] == "blank 1:" and lines[-1] == filled.texts[0]
  for line, candidate in zip(lines[1:3], filled.candidates[0], strict=True):
    assert line.split("%") == [
      f"  {candidate.probability:6.1%}"[:-1],
      f"  {candidate.text!r}",
    ]
  config.preview.prompt = "7 squared"
  with pytest.raises(
    UsageError, match="preview.prompt='7 squared' has no blan"
  ):
    loop.train(config, tmp_path / "other")
