# SPDX-License-Identifier: Apache-2.0
"""Tokens and sequences of tokens that are not generated."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from lmjax.decoding.logits_processors.logits_processor import (
  LogitsProcessor,
  Prompt,
  logits_processor_class,
  static,
  suppress,
)
from lmjax.decoding.logits_processors.token_history import (
  NONE,
  is_among,
  newest,
  shift_in,
)
from lmjax.types import Array, PyTree


@logits_processor_class
class SuppressTokens(LogitsProcessor):
  """Never generate some tokens.

  >>> SuppressTokens((1,))(jnp.array([[2.0, 3.0]]))
  [[2.0, -inf]]
  """

  tokens: tuple[int, ...] = static()

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set their logits to −∞; if no other is finite, make all others equal."""
    tokens = jnp.array(self.tokens, jnp.int32)
    masked_BV = logits_BV.at[:, tokens].set(-jnp.inf)
    possible_B1 = jnp.any(masked_BV > -jnp.inf, axis=-1, keepdims=True)
    uniform_BV = jnp.zeros_like(masked_BV).at[:, tokens].set(-jnp.inf)
    return jnp.where(possible_B1, masked_BV, uniform_BV)


@logits_processor_class
class BadWords(LogitsProcessor):
  """Never complete some sequences of tokens, unless nothing else is possible.

  >>> processor = BadWords.of([[5, 6]])  # after 5, token 6 is suppressed

  Attributes:
    words: int [N, M]; one sequence per row, left-padded with NONE.
  """

  words: Array

  @classmethod
  def of(cls, words: Sequence[Sequence[int]]) -> "BadWords":
    """Return a processor for sequences of at least one token each.

    >>> BadWords.of([[7], [5, 6]]).words
    [[-1, 7], [5, 6]]
    """
    longest = max(map(len, words))
    return cls(
      np.array([[NONE] * (longest - len(word)) + [*word] for word in words])
    )

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Keep the newest tokens: all of a word but its last token."""
    return newest(prompt, self.words.shape[1] - 1)

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Suppress the last token of words whose other tokens came just now."""
    words = jnp.asarray(self.words)
    same = state[:, None] == words[None, :, :-1]
    same |= words[None, :, :-1] == NONE
    last_BN = jnp.where(same.all(axis=-1), words[:, -1], NONE)
    return suppress(logits_BV, is_among(last_BN, logits_BV.shape[1]))

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Append the token."""
    return shift_in(state, token_B)


@logits_processor_class
class NoRepeatNgrams(LogitsProcessor):
  """Never repeat an n-gram of the text or prompt.

  If every token would repeat one, the most likely token is generated (Paulus et
  al. 2018, arXiv:1705.04304, for beam search).

  With n = 2 and the text 5 6 5, token 6 is suppressed.

  Attributes:
    size: n.
    memory: number of n-grams that are compared, the newest ones.
  """

  size: int = static()
  memory: int = static(default=4096)

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Keep the newest n-grams and the last n − 1 tokens."""
    return newest(prompt, self.memory + self.size - 1)

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Suppress what followed earlier occurrences of the last n − 1 tokens."""
    last_BN = state[:, self.size - 1 :]
    for offset in range(self.size - 1):
      current_B1 = state[:, self.memory + offset, None]
      earlier_BN = state[:, offset : self.memory + offset]
      last_BN = jnp.where(earlier_BN == current_B1, last_BN, NONE)
    return suppress(logits_BV, is_among(last_BN, logits_BV.shape[1]))

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Append the token."""
    return shift_in(state, token_B)
