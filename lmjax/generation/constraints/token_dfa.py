# SPDX-License-Identifier: Apache-2.0
"""From automata over bytes to automata over tokens."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from lmjax.data.tokenizers import EOS, Tokenizer
from lmjax.decoding.logits_processors import Automaton
from lmjax.errors import UsageError
from lmjax.generation.constraints.byte_dfa import (
  BETWEEN,
  ByteAutomaton,
  with_spaces,
)

MOST_CELLS = 1 << 27  # of a table, states × classes of tokens


def over_tokens(automaton: ByteAutomaton, tokenizer: Tokenizer) -> Automaton:
  """Make the filter that draws texts which an automaton takes.

  Args:
    automaton: reads what tokens stand for. Words have a space between them, so
      one that asks for two spaces takes nothing that word tokenizers write.
    tokenizer: turns tokens into text.

  Raises:
    UsageError: if no text that it writes is taken.
  """
  next_SC, class_V, accepts_S = _classes(automaton, tokenizer)
  distance_S = _distances(next_SC, accepts_S)
  if distance_S[0] < 0:
    raise UsageError(
      "no text that the run's tokenizer can write is as it must be; ask for "
      "characters and words that its training text has."
    )
  kept = _reachable(next_SC, distance_S >= 0)
  number_S = np.full(len(next_SC), -1, np.int32)
  number_S[kept] = np.arange(len(kept))
  next_SC, same_C = np.unique(
    number_S[next_SC[kept]], axis=1, return_inverse=True
  )
  class_V = same_C.reshape(-1)[class_V].astype(np.int32)
  return Automaton(*map(jnp.asarray, (next_SC, class_V, distance_S[kept])))


def in_time(automaton: Automaton, num_tokens: int) -> Automaton:
  """Let texts be complete when so many tokens are drawn.

  Raises:
    UsageError: if none is so soon.
  """
  shortest = int(automaton.distance_S[0])
  if shortest > num_tokens:
    raise UsageError(
      f"the shortest text that is as it must be has {shortest} tokens, more "
      f"than num_tokens={num_tokens}; ask for so many."
    )
  return dataclasses.replace(automaton, num_tokens=jnp.int32(num_tokens))


def _classes(
  automaton: ByteAutomaton, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Follow the bytes of each token from all states at once.

  Returns:
    The state behind each class of tokens [S, C], the class of each token [V],
    and which states accept [S].
  """
  spellings = [tuple(spelt) for spelt in tokenizer.spellings()]
  if tokenizer.has_spaces:
    automaton = with_spaces(automaton)
    spellings = [
      (BETWEEN, *spelt) if spelt not in ((), (ord("\n"),)) else spelt
      for spelt in spellings
    ]
  next_SN, accepts_S = automaton
  dead = len(next_SN) - 1
  everywhere_S = np.arange(dead + 1, dtype=np.int32)
  columns, known, steps = [everywhere_S], {everywhere_S.tobytes(): 0}, {}

  def number(column_S: np.ndarray) -> int:
    key = column_S.tobytes()
    if key not in known:
      if len(columns) * len(column_S) > MOST_CELLS:
        raise UsageError(
          f"what a text must be makes {len(column_S):,} states, too many for "
          "this vocabulary; ask for fewer or shorter words, or for a regular "
          "expression with fewer repetitions."
        )
      known[key] = len(columns)
      columns.append(column_S)
    return known[key]

  def follow(column: int, symbol: int) -> int:
    if (column, symbol) not in steps:
      steps[column, symbol] = number(next_SN[columns[column], symbol])
    return steps[column, symbol]

  nowhere = number(np.full_like(everywhere_S, dead))
  class_V = np.full(len(spellings), nowhere, np.int32)
  for token, spelt in enumerate(spellings):
    if spelt:
      class_V[token] = functools.reduce(follow, spelt, 0)
  class_V[EOS] = number(np.where(accepts_S, everywhere_S, dead))
  used, class_V = np.unique(class_V, return_inverse=True)
  next_SC = np.stack([columns[column] for column in used], axis=1)
  return next_SC, class_V, accepts_S


def _distances(next_SC: np.ndarray, accepts_S: np.ndarray) -> np.ndarray:
  """Count the tokens from each state to an accepting one; −1 if none lead."""
  size = len(next_SC)
  edges = np.unique(np.arange(size)[:, None] * size + next_SC)
  begins, ends = edges // size, edges % size
  distance_S = np.where(accepts_S, 0, -1).astype(np.int32)
  steps, reached_S = 0, accepts_S
  while reached_S.any():
    steps += 1
    before = begins[reached_S[ends]]
    reached_S = np.zeros(size, bool)
    reached_S[before] = distance_S[before] < 0
    distance_S[reached_S] = steps
  return distance_S


def _reachable(next_SC: np.ndarray, useful_S: np.ndarray) -> np.ndarray:
  """List the useful states that a text gets to, the first one first."""
  reached_S = np.zeros(len(next_SC), bool)
  frontier = np.array([0])
  while len(frontier):
    reached_S[frontier] = True
    frontier = np.unique(next_SC[frontier])
    frontier = frontier[useful_S[frontier] & ~reached_S[frontier]]
  return np.flatnonzero(reached_S)
