# SPDX-License-Identifier: Apache-2.0
"""Tokens that must not come."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from lmjax.decoding.filters.filter import (
  Filter,
  Prompt,
  filter_class,
  leave_out,
  static,
)
from lmjax.decoding.filters.recent import NONE, is_among, move_on, newest
from lmjax.types import Array, PyTree


@filter_class
class Ban(Filter):
  """Never draw some tokens."""

  tokens: tuple[int, ...] = static()

  def __call__(self, logits_BV: Array, state: PyTree = ()) -> Array:
    """Set their logits to −∞; others, if all are −∞, become alike likely."""
    tokens = jnp.array(self.tokens, jnp.int32)
    left_BV = logits_BV.at[:, tokens].set(-jnp.inf)
    possible_B1 = jnp.any(left_BV > -jnp.inf, axis=-1, keepdims=True)
    alike_BV = jnp.zeros_like(left_BV).at[:, tokens].set(-jnp.inf)
    return jnp.where(possible_B1, left_BV, alike_BV)


@filter_class
class BadWords(Filter):
  """Never complete some sequences of tokens, unless nothing else is possible.

  Attributes:
    words: int [N, M]; a sequence a row, NONE before those that are shorter.
  """

  words: Array

  @classmethod
  def of(cls, words: Sequence[Sequence[int]]) -> "BadWords":
    """Ban sequences of at least one token each.

    >>> BadWords.of([[7], [5, 6]]).words
    [[-1, 7], [5, 6]]
    """
    longest = max(map(len, words))
    return cls(
      np.array([[NONE] * (longest - len(word)) + [*word] for word in words])
    )

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Remember as much of a text as a word may have before its last token."""
    return newest(prompt, self.words.shape[1] - 1)

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Ban the last token of each word whose others have just come."""
    words = jnp.asarray(self.words)
    same = (state[:, None] == words[:, :-1]) | (words[:, :-1] == NONE)
    last_BN = jnp.where(same.all(axis=-1), words[:, -1], NONE)
    return leave_out(logits_BV, is_among(last_BN, logits_BV.shape[1]))

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Remember the newest tokens."""
    return move_on(state, token_B)


@filter_class
class NoRepeatNgrams(Filter):
  """Never write n tokens in a row that stand in the text already.

  Where every token would do so, the most likely one comes (Paulus et al. 2018,
  arXiv:1705.04304, in beam search). The prompt counts.

  Attributes:
    size: n.
    memory: how many n-grams are remembered, the newest.
  """

  size: int = static()
  memory: int = static(default=4096)

  def start(self, prompt: Prompt, vocab_size: int) -> Array:
    """Remember the newest tokens, on whose last n − 1 another may follow."""
    return newest(prompt, self.memory + self.size - 1)

  def __call__(self, logits_BV: Array, state: Array) -> Array:
    """Ban what followed the last n − 1 tokens wherever they stood before."""
    last_BN = state[:, self.size - 1 :]
    for place in range(self.size - 1):
      now_B1 = state[:, self.memory + place, None]
      then_BN = state[:, place : self.memory + place]
      last_BN = jnp.where(then_BN == now_B1, last_BN, NONE)
    return leave_out(logits_BV, is_among(last_BN, logits_BV.shape[1]))

  def advance(self, state: Array, token_B: Array, log_prob_B: Array) -> Array:
    """Remember the newest tokens."""
    return move_on(state, token_B)
