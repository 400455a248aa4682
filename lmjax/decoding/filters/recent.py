# SPDX-License-Identifier: Apache-2.0
"""What stands in a text so far, for filters that look for it there."""

import jax.numpy as jnp

from lmjax.decoding.filters.filter import Prompt
from lmjax.types import Array

NONE = -1  # stands where there is no token


def tokens_of(prompt: Prompt) -> Array:
  """Return the tokens of prompts, and NONE for padding: [B, T]."""
  return jnp.where(prompt.is_text(), prompt.tokens_BT, NONE)


def newest(prompt: Prompt, number: int) -> Array:
  """Return the last tokens of each text, NONE before its first: [B, number].

  >>> newest(Prompt(jnp.array([[0, 5, 6]]), jnp.array([1])), 4)
  [[-1, -1, 5, 6]]
  """
  padding = ((0, 0), (number, 0))
  tokens = jnp.pad(tokens_of(prompt), padding, constant_values=NONE)
  return tokens[:, tokens.shape[1] - number :]


def move_on(recent_BN: Array, token_B: Array) -> Array:
  """Put a token behind the newest, and forget the oldest."""
  return jnp.concatenate([recent_BN, token_B[:, None]], axis=1)[:, 1:]


def is_among(tokens_BN: Array, vocab_size: int) -> Array:
  """Tell which tokens of the vocabulary occur: bool [B, V]; NONE does not."""
  rows_B1 = jnp.arange(len(tokens_BN))[:, None]
  places_BN = jnp.where(tokens_BN == NONE, vocab_size, tokens_BN)
  nothing_BV = jnp.zeros((len(tokens_BN), vocab_size), bool)
  return nothing_BV.at[rows_B1, places_BN].set(True, mode="drop")
