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
  next_SC, class_V, accepts_S = _classes(automaton, tokenizer)
  distance_S = _distances(next_SC, accepts_S)
  if distance_S[0] < 0:
    raise UsageError(
      "no text that the run's tokenizer can write satisfies the constraints; "
      "use characters and words of its training text."
    )
  reachable = _reachable(next_SC, distance_S >= 0)
  number_S = np.full(len(next_SC), -1, np.int32)
  number_S[reachable] = np.arange(len(reachable))
  next_SC, same_C = np.unique(
    number_S[next_SC[reachable]], axis=1, return_inverse=True
  )
  class_V = same_C.reshape(-1)[class_V].astype(np.int32)
  return Automaton(*map(jnp.asarray, (next_SC, class_V, distance_S[reachable])))


def with_limit(automaton: Automaton, num_tokens: int) -> Automaton:
  """Require that texts are complete after `num_tokens` tokens.

  Raises:
    UsageError: if all texts are longer.
  """
  shortest = int(automaton.distance_S[0])
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
  next_SN, accepts_S = automaton
  dead = len(next_SN) - 1
  all_S = np.arange(dead + 1, dtype=np.int32)
  columns, known, steps = [all_S], {all_S.tobytes(): 0}, {}

  def number(column_S: np.ndarray) -> int:
    key = column_S.tobytes()
    if key not in known:
      if len(columns) * len(column_S) > MAX_CELLS:
        raise UsageError(
          f"the constraints have {len(column_S):,} states, too many for this "
          "vocabulary; require fewer or shorter words, or use a regular "
          "expression with fewer repetitions."
        )
      known[key] = len(columns)
      columns.append(column_S)
    return known[key]

  def follow(column: int, symbol: int) -> int:
    if (column, symbol) not in steps:
      steps[column, symbol] = number(next_SN[columns[column], symbol])
    return steps[column, symbol]

  dead_class = number(np.full_like(all_S, dead))
  class_V = np.full(len(token_bytes), dead_class, np.int32)
  for token, symbols in enumerate(token_bytes):
    if symbols:
      class_V[token] = functools.reduce(follow, symbols, 0)
  class_V[tokenizer.eos_id] = number(np.where(accepts_S, all_S, dead))
  used, class_V = np.unique(class_V, return_inverse=True)
  next_SC = np.stack([columns[column] for column in used], axis=1)
  return next_SC, class_V, accepts_S


def _distances(next_SC: np.ndarray, accepts_S: np.ndarray) -> np.ndarray:
  """Return the tokens from each state to an accepting one; −1 if impossible."""
  size = len(next_SC)
  edges = np.unique(np.arange(size)[:, None] * size + next_SC)
  sources, targets = edges // size, edges % size
  distance_S = np.where(accepts_S, 0, -1).astype(np.int32)
  steps, reached_S = 0, accepts_S
  while reached_S.any():
    steps += 1
    before = sources[reached_S[targets]]
    reached_S = np.zeros(size, bool)
    reached_S[before] = distance_S[before] < 0
    distance_S[reached_S] = steps
  return distance_S


def _reachable(next_SC: np.ndarray, useful_S: np.ndarray) -> np.ndarray:
  """Return the useful states that a text can reach, state 0 first."""
  reached_S = np.zeros(len(next_SC), bool)
  frontier = np.array([0])
  while len(frontier):
    reached_S[frontier] = True
    frontier = np.unique(next_SC[frontier])
    frontier = frontier[useful_S[frontier] & ~reached_S[frontier]]
  return np.flatnonzero(reached_S)
