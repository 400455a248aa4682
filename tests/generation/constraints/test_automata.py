# SPDX-License-Identifier: Apache-2.0
"""What automata take, against Python's re on all short texts."""

import collections
import functools
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.data.tokenizers import (
  BPETokenizer,
  ByteTokenizer,
  CharacterTokenizer,
  WordTokenizer,
)
from lmjax.decoding import multinomial
from lmjax.decoding.logits_processors import (
  BadWords,
  Prompt,
  SuppressTokens,
  TopK,
  chain,
)
from lmjax.errors import UsageError
from lmjax.generation.constraints import byte_dfa, token_dfa
from lmjax.generation.constraints.byte_dfa import (
  containing_word,
  from_json_schema,
  from_regex,
  intersection,
)
from lmjax.generation.constraints.token_dfa import over_tokens, with_limit
from tests.helpers.frequencies import assert_frequencies

EOS = BPETokenizer.eos_id

SPECIALS = ["<pad>", "<unk>", "<bos>", "<eos>"]
ALPHABET = "ab é\n"
BPE = BPETokenizer.train(["ab abé aéé é ab\n\n"] * 9, 268, 2, lower_case=False)
TOKENIZERS = {
  "character": CharacterTokenizer([*SPECIALS, *ALPHABET], lower_case=False),
  "word": WordTokenizer(
    [*SPECIALS, "a", "ab", "é", "\n", "b"], lower_case=False
  ),
  "bpe": BPE.with_special_tokens(["<mask>"]),
}
LETTERS = TOKENIZERS["character"]
CASES = [
  ("character", r"a*b"),
  ("character", r"[^a]{2,3}"),
  ("character", r"(?s)a.b?."),
  ("character", r"^(a|b.)$"),
  ("character", r"\w+( \w+)*"),
  ("character", r""),
  ("word", r"a.*"),
  ("word", r"(?s)a.b?."),
  ("word", r"\w+( \w+)*"),
  ("word", r"ab( é\n?)*|a\nb a"),
  ("bpe", r"(ab?é?)+"),
  ("bpe", r"ab( é\n?)*|a\nb a"),
]


def prompt(rows):
  return Prompt(jnp.zeros((rows, 2), jnp.int32), jnp.zeros(rows, jnp.int32))


@functools.partial(jax.jit, static_argnames="size")
def follow(logits_processor, state, token_B, size):
  """Let all tokens be alike, and say what a filter makes of it."""
  state = logits_processor.advance(state, token_B, 0.0 * token_B)
  return logits_processor(jnp.zeros((len(token_B), size)), state), state


@functools.partial(jax.jit, static_argnames=("rows", "longest"))
def draw(logits_processor, logits_V, rows, longest):
  """Draw texts from a model that always says the same."""

  def one_token(state, key):
    keys = jax.random.split(key, rows)
    logits_BV = jnp.tile(logits_V, (rows, 1))
    token_B = multinomial.sample(keys, logits_processor(logits_BV, state))
    return logits_processor.advance(state, token_B, 0.0 * token_B), token_B

  state = logits_processor.start(prompt(rows), len(logits_V))
  keys = jax.random.split(jax.random.key(0), longest)
  return jax.lax.scan(one_token, state, keys)[1].T


def sample(logits_processor, logits_V, rows, longest):
  return np.asarray(
    draw(logits_processor, jnp.array(logits_V), rows, longest)
  ).tolist()


def drawable(logits_processor, size, longest):
  """List the texts that may end, and those that may be cut at `longest`."""
  state = logits_processor.start(prompt(1), size)
  ended, layer = (
    set(),
    [((), state, logits_processor(jnp.zeros((1, size)), state))],
  )
  for length in range(longest + 1):
    cut = {tokens for tokens, _, _ in layer}
    following = []
    for tokens, state, logits in layer:
      for token in np.flatnonzero(np.isfinite(logits[0])).tolist():
        if token == EOS:
          ended.add(tokens)
        elif length < longest:
          after, moved = follow(
            logits_processor, state, jnp.array([token]), size
          )
          following.append(((*tokens, token), moved, after))
    layer = following
  return ended, cut


def texts(tokenizer, longest):
  """Spell all texts of a few tokens; those that are broken have None."""
  spelt = dict(enumerate(tokenizer.token_bytes()))
  known = [k for k, v in spelt.items() if v and set(v) <= set(b"ab\xc3\xa9 \n")]
  for length in range(longest + 1):
    for tokens in itertools.product(known, repeat=length):
      text = tokenizer.decode(tokens)
      if not tokenizer.has_spaces:
        data = b"".join(spelt[token] for token in tokens)
        assert data.decode("utf-8", "replace") == text
      yield tokens, None if "\ufffd" in text else text


@pytest.mark.parametrize(("kind", "pattern"), CASES)
def test_texts_that_may_end_are_those_that_python_matches(kind, pattern):
  tokenizer, longest = TOKENIZERS[kind], 3 if kind == "bpe" else 4
  logits_processor = over_tokens(from_regex(pattern), tokenizer)
  ended, _ = drawable(logits_processor, tokenizer.vocab_size, longest)
  match = re.compile(pattern).fullmatch
  expected = {
    tokens
    for tokens, text in texts(tokenizer, longest)
    if text is not None and match(text)
  }
  assert ended == expected and expected


@pytest.mark.parametrize("pattern", ["(abb)+a?", "b(a|abb)"])
def test_texts_are_brought_to_their_end_in_time(pattern):
  """So what is cut matches as what ends does, and all that match are there."""
  tokenizer = LETTERS
  logits_processor, match = (
    over_tokens(from_regex(pattern), tokenizer),
    re.compile(pattern),
  )
  for longest in (4, 5):
    in_the_end = with_limit(logits_processor, longest)
    ended, cut = drawable(in_the_end, tokenizer.vocab_size, longest)
    assert all(len(tokens) == longest for tokens in cut)
    assert cut | ended == {
      tokens
      for tokens, text in texts(tokenizer, longest)
      if match.fullmatch(text)
    }
    assert bool(cut) == (longest == 4)
  with pytest.raises(UsageError, match="shortest text .* has [23] tokens"):
    with_limit(logits_processor, 1)


def test_frequencies_are_those_of_the_model_renormalised_step_by_step():
  tokenizer, longest, number = LETTERS, 3, 20_000
  pattern = r"a(b|éa)*"
  logits_processor = with_limit(
    over_tokens(from_regex(pattern), tokenizer), longest
  )
  chance = np.random.default_rng(3).dirichlet(np.ones(tokenizer.vocab_size))
  complete = [
    (*tokens, EOS)[:longest]
    for tokens, text in texts(tokenizer, longest)
    if re.fullmatch(pattern, text)
  ]
  expected = {}
  for text in complete:
    expected[text] = 1.0
    for place, token in enumerate(text):
      ways = {t[place] for t in complete if t[:place] == text[:place]}
      expected[text] *= chance[token] / chance[list(ways)].sum()

  counts = collections.Counter()
  for row in sample(logits_processor, np.log(chance), number, longest):
    end = row.index(EOS) + 1 if EOS in row else longest
    counts[tuple(row[:end])] += 1
  assert counts.keys() <= expected.keys()
  np.testing.assert_allclose(sum(expected.values()), 1.0)
  assert len(expected) == 4
  assert_frequencies([counts[text] for text in expected], [*expected.values()])


def test_what_other_filters_leave_is_kept_to():
  """And where they leave nothing, all that the automaton takes are alike."""
  tokenizer = LETTERS
  logits_processor = over_tokens(from_regex("[ab]"), tokenizer)
  a, b = tokenizer.encode("ab").tolist()
  logits = jnp.arange(9.0)[None]

  def left(*processors):
    chained = chain(processors)
    state = chained.start(prompt(1), tokenizer.vocab_size)
    filtered = chained(logits, state)[0]
    return {k: float(v) for k, v in enumerate(filtered) if jnp.isfinite(v)}

  assert left(logits_processor) == {a: a, b: b}
  assert left(logits_processor, TopK(1)) == {b: b}
  assert left(logits_processor, BadWords.of([[a], [b]])) == {b: b}
  assert left(SuppressTokens((b,)), logits_processor) == {a: a}
  assert left(TopK(1), logits_processor) == {a: 0.0, b: 0.0}


def test_words_that_must_occur_are_words():
  letters, alphabet = r"[0-9A-Za-z_\x80-\U0010ffff]", "ab-é"
  for word in ("ab", "é", "b a", "-a"):
    automaton = containing_word(word)
    wanted = re.escape(word)
    if word != "-a":
      wanted = f"(?<!{letters}){wanted}"
    search = re.compile(f"{wanted}(?!{letters})").search
    for length in range(6):
      for text in map("".join, itertools.product(alphabet, repeat=length)):
        assert automaton.accepts(text.encode()) == bool(search(text)), text


def test_both_is_what_each_of_them_takes():
  a, b = containing_word("ab"), from_regex("[ab ]*b")
  together, count = intersection(intersection(a, containing_word("b")), b), 0
  for length in range(8):
    for text in map("".join, itertools.product("ab ", repeat=length)):
      words = text.split(" ")
      taken = "ab" in words and "b" in words and text.endswith("b")
      assert together.accepts(text.encode()) == taken, text
      count += taken
  assert count


def test_json_fits_its_schema():
  schema = dict(
    type="object",
    properties=dict(
      name=dict(type="string", maxLength=3),
      tags=dict(type="array", items=dict(enum=["x", "yy"])),
      age=dict(type="integer"),
    ),
    required=["name", "tags", "age"],
  )
  automaton = from_json_schema(json.dumps(schema))
  tokenizer, rows, longest = ByteTokenizer(), 64, 60
  logits_processor = with_limit(over_tokens(automaton, tokenizer), longest)
  seen = set()
  for row in sample(
    logits_processor, np.zeros(tokenizer.vocab_size), rows, longest
  ):
    tokens = row[: row.index(EOS)] if EOS in row else row
    value = json.loads(tokenizer.decode(tokens))
    assert list(value) == ["name", "tags", "age"]
    assert len(value["name"]) <= 3 and set(value["tags"]) <= {"x", "yy"}
    assert isinstance(value["age"], int)
    seen.add(json.dumps(value))
  assert len(seen) > rows // 2


@pytest.mark.parametrize(
  ("make", "sentence"),
  [
    (lambda: from_regex("(a"), r"\(a is invalid"),
    (lambda: from_regex(r"(?=a)b"), "look-around"),
    (lambda: from_regex("a^b"), "no text can match"),
    (lambda: from_regex("(a$|b)"), "no text can match"),
    (lambda: from_json_schema("{"), "not valid JSON"),
    (lambda: from_json_schema('{"type": "color"}'), "Unsupported type: color"),
    (lambda: over_tokens(from_regex("a+c"), LETTERS), "no text that the run's"),
    (
      lambda: over_tokens(
        intersection(containing_word("a"), from_regex("b+")), LETTERS
      ),
      "no text that the run's",
    ),
    (
      lambda: over_tokens(from_regex(".{99}"), LETTERS),
      "has 99 tokens",
    ),
  ],
)
def test_what_cannot_be_is_one_sentence(make, sentence):
  with pytest.raises(UsageError, match=sentence) as raised:
    with_limit(make(), 9)
  assert len(str(raised.value)) < 200 and "\n" not in str(raised.value)


def test_what_is_too_large_says_so(monkeypatch):
  monkeypatch.setattr(byte_dfa, "MAX_STATES", 9)
  with pytest.raises(UsageError, match="states, but the limit is 9; use fewer"):
    from_regex(".{9}")
  monkeypatch.setattr(byte_dfa, "MAX_PAIRS", 9)
  with pytest.raises(UsageError, match="require fewer or shorter words"):
    intersection(from_regex("aa"), from_regex("a*"))
  monkeypatch.setattr(token_dfa, "MAX_CELLS", 9)
  with pytest.raises(UsageError, match="too many for this vocabulary"):
    over_tokens(from_regex("aa"), LETTERS)
