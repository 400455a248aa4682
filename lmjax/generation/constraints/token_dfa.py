# SPDX-License-Identifier: Apache-2.0
"""Automata over tokens, made from automata over bytes."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from lmjax.data.tokenizers import Tokenizer
from lmjax.decoding.logits_processors import Automaton
from lmjax.errors import UsageError
from lmjax.generation.constraints.byte_dfa import (
  WORD_BOUNDARY,
  ByteAutomaton,
  with_spaces,
)

MAX_CELLS = 1 << 27  # of a transition table, states × classes of tokens


def over_tokens(automaton: ByteAutomaton, tokenizer: Tokenizer) -> Automaton:
  """Return the logits processor for the texts that an automaton accepts.

  Args:
    automaton: an automaton over the bytes of texts. Word tokenizers join words
      by one space, so no text with two spaces can be generated.
    tokenizer: tokenizer of the generated text.

  Raises:
    UsageError: if the tokenizer can write none of these texts.
  """
  next_UY, class_V, accepts_U = _classes(automaton, tokenizer)
  distance_U = _distances(next_UY, accepts_U)
  if distance_U[0] < 0:
    raise UsageError(
      "no text that the run's tokenizer can write satisfies the constraints; "
      "use characters and words of its training text."
    )
  reachable = _reachable(next_UY, distance_U >= 0)
  number_U = np.full(len(next_UY), -1, np.int32)
  number_U[reachable] = np.arange(len(reachable))
  next_UY, same_Y = np.unique(
    number_U[next_UY[reachable]], axis=1, return_inverse=True
  )
  class_V = same_Y.reshape(-1)[class_V].astype(np.int32)
  return Automaton(*map(jnp.asarray, (next_UY, class_V, distance_U[reachable])))


def with_limit(automaton: Automaton, num_tokens: int) -> Automaton:
  """Require that texts are complete after `num_tokens` tokens.

  Raises:
    UsageError: if all texts are longer.
  """
  shortest = int(automaton.distance_U[0])
  if shortest > num_tokens:
    raise UsageError(
      f"the shortest text that satisfies the constraints has {shortest} "
      f"tokens, more than num_tokens={num_tokens}; increase num_tokens."
    )
  return dataclasses.replace(automaton, num_tokens=jnp.int32(num_tokens))


def _classes(
  automaton: ByteAutomaton, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Follow the bytes of each token from all states at once.

  Tokens share prefixes, and most lead to the dead state from everywhere, so a
  column of the table is computed once per distinct prefix.

  Returns:
    The state after each class of tokens [S, C], the class of each token [V],
    and which states accept [S].
  """
  token_bytes = [tuple(each) for each in tokenizer.token_bytes()]
  if tokenizer.has_spaces:
    automaton = with_spaces(automaton)
    token_bytes = [
      (WORD_BOUNDARY, *each) if each not in ((), (ord("\n"),)) else each
      for each in token_bytes
    ]
  next_UN, accepts_U = automaton
  dead = len(next_UN) - 1
  all_U = np.arange(dead + 1, dtype=np.int32)
  columns, known, steps = [all_U], {all_U.tobytes(): 0}, {}

  def number(column_U: np.ndarray) -> int:
    key = column_U.tobytes()
    if key not in known:
      if len(columns) * len(column_U) > MAX_CELLS:
        raise UsageError(
          f"the constraints have {len(column_U):,} states, too many for this "
          "vocabulary; require fewer or shorter words, or use a regular "
          "expression with fewer repetitions."
        )
      known[key] = len(columns)
      columns.append(column_U)
    return known[key]

  def follow(column: int, symbol: int) -> int:
    if (column, symbol) not in steps:
      steps[column, symbol] = number(next_UN[columns[column], symbol])
    return steps[column, symbol]

  dead_class = number(np.full_like(all_U, dead))
  class_V = np.full(len(token_bytes), dead_class, np.int32)
  for token, symbols in enumerate(token_bytes):
    if symbols:
      class_V[token] = functools.reduce(follow, symbols, 0)
  class_V[tokenizer.eos_id] = number(np.where(accepts_U, all_U, dead))
  used, class_V = np.unique(class_V, return_inverse=True)
  next_UY = np.stack([columns[column] for column in used], axis=1)
  return next_UY, class_V, accepts_U


def _distances(next_UY: np.ndarray, accepts_U: np.ndarray) -> np.ndarray:
  """Return the tokens from each state to an accepting one; −1 if impossible."""
  size = len(next_UY)
  edges = np.unique(np.arange(size)[:, None] * size + next_UY)
  sources, targets = edges // size, edges % size
  distance_U = np.where(accepts_U, 0, -1).astype(np.int32)
  steps, reached_U = 0, accepts_U
  while reached_U.any():
    steps += 1
    before = sources[reached_U[targets]]
    reached_U = np.zeros(size, bool)
    reached_U[before] = distance_U[before] < 0
    distance_U[reached_U] = steps
  return distance_U


def _reachable(next_UY: np.ndarray, useful_U: np.ndarray) -> np.ndarray:
  """Return the useful states that a text can reach, state 0 first."""
  reached_U = np.zeros(len(next_UY), bool)
  frontier = np.array([0])
  while len(frontier):
    reached_U[frontier] = True
    frontier = np.unique(next_UY[frontier])
    frontier = frontier[useful_U[frontier] & ~reached_U[frontier]]
  return np.flatnonzero(reached_U)
