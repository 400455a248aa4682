# SPDX-License-Identifier: Apache-2.0
"""The tokens of a text so far, for processors that compare with them."""

import jax.numpy as jnp

from lmjax.decoding.logits_processors.logits_processor import Prompt
from lmjax.types import Array

NONE = -1  # no token at this position


def tokens_of(prompt: Prompt) -> Array:
  """Return the tokens of prompts, with NONE at padding, [B, T]."""
  return jnp.where(prompt.is_text(), prompt.tokens_BT, NONE)


def newest(prompt: Prompt, number: int) -> Array:
  """Return the last tokens of each text, left-padded with NONE, [B, number].

  >>> newest(Prompt(jnp.array([[0, 5, 6]]), jnp.array([1])), 4)
  [[-1, -1, 5, 6]]
  """
  padding = ((0, 0), (number, 0))
  tokens = jnp.pad(tokens_of(prompt), padding, constant_values=NONE)
  return tokens[:, tokens.shape[1] - number :]


def shift_in(recent_BN: Array, token_B: Array) -> Array:
  """Append a token and drop the oldest one."""
  return jnp.concatenate([recent_BN, token_B[:, None]], axis=1)[:, 1:]


def is_among(tokens_BN: Array, vocab_size: int) -> Array:
  """Return which tokens of the vocabulary occur, bool [B, V]; NONE does not.

  >>> is_among(jnp.array([[2, NONE]]), 4)
  [[False, False, True, False]]
  """
  rows_B1 = jnp.arange(len(tokens_BN))[:, None]
  columns_BN = jnp.where(tokens_BN == NONE, vocab_size, tokens_BN)
  none_BV = jnp.zeros((len(tokens_BN), vocab_size), bool)
  return none_BV.at[rows_B1, columns_BN].set(True, mode="drop")
