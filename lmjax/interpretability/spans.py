# SPDX-License-Identifier: Apache-2.0
"""Tokens as pieces of text that can be read."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmjax.data.tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"  # decoded from bytes of an incomplete character
_MOST = 4  # bytes of a character in UTF-8, each perhaps a token


class Span(NamedTuple):
  """A token, or the tokens of one character, in a text.

  Attributes:
    text: what it adds to the text before it.
    value: a number of the token, or the sum of theirs.
  """

  text: str
  value: float


def readable(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
  """Return the text of each token, or its name if it is not text.

  >>> readable(bpe, bpe.encode(" über")), readable(bpe, [bpe.eos_id])
  ([" über"], ["<eos>"])
  """
  names, spellings = tokenizer.names(), tokenizer.token_bytes()
  written = [spellings[token].decode(errors="replace") for token in tokens]
  return [
    text if text and _REPLACEMENT not in text else names[token]
    for text, token in zip(written, tokens, strict=True)
  ]


def spans(
  tokenizer: Tokenizer, tokens: Sequence[int], values_T: np.ndarray
) -> list[Span]:
  """Split a text at its tokens.

  >>> spans(words, words.encode("a list"), [0.5, 2.0])
  [Span("a", 0.5), Span(" list", 2.0)]

  Args:
    tokenizer: turns tokens into text.
    tokens: all of the text.
    values_T: a number each.
  """
  found, before, own, total = [], [], [], 0.0
  for token, value in zip(tokens, map(float, values_T), strict=True):
    own, total = [*own, token], total + value
    known = tokenizer.decode(before)
    text = tokenizer.decode([*before, *own])[len(known) :]
    halved = tokenizer.unit == "byte" and text.endswith(_REPLACEMENT)
    if halved and len(own) < _MOST:
      continue
    found.append(Span(text, total))
    before, own, total = own, [], 0.0
  if own:
    found.append(Span(tokenizer.decode(own), total))
  return found
