# SPDX-License-Identifier: Apache-2.0
"""What automata take, against re.fullmatch on all short texts."""

import functools
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.control.byte_automaton import both, containing, matching
from lmjax.control.token_automaton import over_tokens
from lmjax.data.tokenizers import (
  EOS,
  BPETokenizer,
  ByteTokenizer,
  CharacterTokenizer,
  WordTokenizer,
)
from lmjax.decoding import multinomial
from lmjax.decoding.filters import Ban, Prompt, chain
from lmjax.errors import UsageError

SPECIALS = ["<pad>", "<unk>", "<bos>", "<eos>"]
LONGEST = 4
ABC = CharacterTokenizer([*SPECIALS, *"ab é\n"], lower_case=False)
WORDS = WordTokenizer([*SPECIALS, "a", "ab", "é", "\n", "b"], lower_case=False)
BPE = BPETokenizer.train(["ab abé aéé é ab\n\n"] * 9, 268, 2, lower_case=False)
TOKENIZERS = {"character": ABC, "word": WORDS, "bpe": BPE}

PATTERNS = [
  r"a*b",
  r"(ab?é?)+",
  r"[^a]{2,3}",
  r"a.*",
  r"(?s)a.b?.",
  r"\w+( \w+)*",
  r"ab( é\n?)*|a\nb a",
  r"",
]


def prompt(rows):
  return Prompt(jnp.zeros((rows, 2), jnp.int32), jnp.zeros(rows, jnp.int32))


@functools.partial(jax.jit, static_argnames="size")
def step(choose, state, token_B, size):
  """Let all tokens be alike, and say what a filter makes of it."""
  state = choose.advance(state, token_B, 0.0 * token_B)
  return choose(jnp.zeros((len(token_B), size)), state), state


def texts_of(tokenizer, choose, longest):
  """Follow all that may be drawn; list what has ended, and all prefixes."""
  size, ended, prefixes = tokenizer.vocab_size, set(), [[]]
  state = choose.start(prompt(1), size)
  layer = [([], state, choose(jnp.zeros((1, size)), state))]
  for _ in range(longest + 1):
    following = []
    for tokens, state, logits in layer:
      for token in np.flatnonzero(np.isfinite(logits[0])).tolist():
        if token == EOS:
          ended.add(tuple(tokens))
        elif len(tokens) < longest:
          after, moved = step(choose, state, jnp.array([token]), size)
          following.append(([*tokens, token], moved, after))
          prefixes.append([*tokens, token])
    layer = following
  return ended, prefixes


def all_texts(tokenizer, longest):
  plain = [
    token
    for token, spelt in enumerate(tokenizer.spellings())
    if spelt and set(spelt.decode("utf-8", "replace")) <= set("abé \n")
  ]
  for length in range(longest + 1):
    yield from itertools.product(plain, repeat=length)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", ["character", "word"])
def test_texts_are_those_that_python_matches(kind, pattern):
  tokenizer = TOKENIZERS[kind]
  choose = over_tokens(matching(pattern), tokenizer, 99)
  ended, _ = texts_of(tokenizer, choose, LONGEST)
  match = re.compile(pattern).fullmatch
  assert ended == {
    tokens
    for tokens in all_texts(tokenizer, LONGEST)
    if match(tokenizer.decode(tokens))
  }
