# SPDX-License-Identifier: Apache-2.0
"""Deterministic automata over the bytes of a text, on the host."""

import re
from typing import NamedTuple

import numpy as np
from outlines_core import Index, Vocabulary
from outlines_core.json_schema import build_regex_from_schema

from lmjax.errors import UsageError

BETWEEN = 256  # a symbol behind all bytes: where a tokenizer joins two tokens
MOST_STATES = 1 << 15
MOST_PAIRS = 1 << 26  # states of two automata at once
_EOS = 256  # a token that the library wants to have
_SPACE, _NEWLINE = ord(" "), ord("\n")
_LAST_DOLLAR = re.compile(r"(?<!\\)((?:\\\\)*)\$\Z")
# ASCII characters that are part of no word.
_OUTSIDE = r"[\x01-/:-@\[-^`{-\x7F]"


class ByteAutomaton(NamedTuple):
  """States and what leads from one to another; a text begins in state 0.

  Attributes:
    next_SN: int32, the state behind each of N symbols, which are the bytes and
      perhaps `BETWEEN`. The last state is where nothing can be accepted any
      more; nothing leads out of it.
    accepts_S: whether a text may end there.
  """

  next_SN: np.ndarray
  accepts_S: np.ndarray

  def accepts(self, text: bytes) -> bool:
    """Say whether the automaton takes a text."""
    state = 0
    for byte in text:
      state = self.next_SN[state, byte]
    return bool(self.accepts_S[state])


def matching(pattern: str) -> ByteAutomaton:
  r"""Make an automaton that takes what a regular expression matches as a whole.

  Args:
    pattern: in the syntax of Rust's regex: that of Python without look-around
      and back references. `\b` is not possible, nor `^` but at the begin, nor
      `$` but at the end. The character 0 is in no text.

  Raises:
    UsageError: if it is no such expression, matches nothing, or is too large.
  """
  # From where a match may end, the library leaves out ways on that need more
  # than a byte to the next end. So a match is made to end behind a mark alone.
  whole = _LAST_DOLLAR.sub(r"\1", pattern).removeprefix("^")
  ended = rf"(?:{whole})\x00"
  alphabet = {bytes([byte]): [byte] for byte in range(256)}
  try:
    index = Index(ended, Vocabulary(_EOS, alphabet))
  except ValueError as error:
    if "Failed to build DFA" in str(error):
      raise UsageError(
        f"the regular expression {pattern} is malformed, or has look-around, "
        r"back references or \b, which no automaton has; write it without."
      ) from None
    raise UsageError(
      f"the regular expression {pattern} has places from which no text can "
      "go on; leave them out."
    ) from None
  leads, ends = index.get_transitions(), index.get_final_states()
  if len(leads) > MOST_STATES:
    raise UsageError(
      f"the regular expression makes {len(leads):,} states, more than "
      f"{MOST_STATES:,}; repeat fewer things, or less often."
    )
  begin = index.get_initial_state()
  states = [begin, *sorted(leads.keys() - {begin})]
  number = {state: place for place, state in enumerate(states)}
  dead = len(states)
  next_SN = np.full((dead + 1, 256), dead, np.int32)
  for state, ways in leads.items():
    for byte, target in ways.items():
      if 0 < byte < 256:
        next_SN[number[state], byte] = number[target]
  accepts = [leads[state].get(0) in ends for state in states]
  return ByteAutomaton(next_SN, np.array([*accepts, False]))


def fitting(schema: str) -> ByteAutomaton:
  """Make an automaton that takes JSON which fits a schema.

  Fields come in the order of the schema, with at most a space between marks.
  Limits of numbers are not kept, for the library knows none.

  Args:
    schema: JSON Schema, as text.

  Raises:
    UsageError: if it is malformed, or says what the library does not know.
  """
  try:
    pattern = build_regex_from_schema(schema)
  except TypeError:
    raise UsageError("the JSON schema is no JSON; correct it.") from None
  except ValueError as error:
    reason = str(error).splitlines()[0].strip().rstrip(".")
    raise UsageError(
      f"the JSON schema has no regular expression ({reason}); leave that out."
    ) from None
  return matching(pattern)


def containing(word: str) -> ByteAutomaton:
  """Make an automaton that takes texts in which a word, or phrase, occurs.

  It may not be part of a longer word: next to its letters must be the text's
  begin or end or an ASCII character that is no letter, digit or underscore.
  """
  inside = re.compile(_OUTSIDE).match
  before = "" if inside(word[:1]) else _OUTSIDE
  behind = "" if inside(word[-1:]) else _OUTSIDE
  return matching(f"(?s)(?:.*{before})?{_literal(word)}(?:{behind}.*)?")


def both(a: ByteAutomaton, b: ByteAutomaton) -> ByteAutomaton:
  """Make an automaton that takes what two automata take.

  Raises:
    UsageError: if it were too large.
  """
  width, number_of_pairs = len(b.next_SN), len(a.next_SN) * len(b.next_SN)
  if number_of_pairs > MOST_PAIRS:
    raise UsageError(
      f"what a text must hold makes {number_of_pairs:,} states; ask for fewer "
      "or shorter words, or for a simpler regular expression."
    )
  alive = np.ones((len(a.next_SN), width), bool)
  alive[-1] = alive[:, -1] = False
  alive_P, dead = alive.reshape(-1), number_of_pairs - 1
  number_P = np.full(number_of_pairs, -1)  # in the order they are found
  number_P[0], found, rows = 0, [0], []
  frontier = np.array([0])
  while len(frontier):
    next_FN = a.next_SN[frontier // width].astype(np.int64) * width
    next_FN += b.next_SN[frontier % width]
    rows.append(np.where(alive_P[next_FN], next_FN, dead))
    frontier = np.unique(rows[-1])
    frontier = frontier[(number_P[frontier] < 0) & (frontier != dead)]
    number_P[frontier] = len(found) + np.arange(len(frontier))
    found += frontier.tolist()
  number_P[dead] = len(found)
  pairs = np.array(found)
  accepts_S = a.accepts_S[pairs // width] & b.accepts_S[pairs % width]
  stays_1N = np.full((1, next_FN.shape[1]), dead)
  return ByteAutomaton(
    number_P[np.concatenate([*rows, stays_1N])].astype(np.int32),
    np.append(accepts_S, False),
  )


def with_spaces(automaton: ByteAutomaton) -> ByteAutomaton:
  r"""Let the symbol `BETWEEN` stand for a space, but for nothing at line ends.

  That is how words are joined: "a", "b", newline, "c" is "a b\nc". With
  `BETWEEN` before each word but none before a newline, an automaton needs to
  know one thing more: whether it is at the begin of a line.
  """
  next_SN = automaton.next_SN
  dead = len(next_SN) - 1  # states inside a line come behind all others
  inside_SN = dead + np.append(next_SN, next_SN[:, [_SPACE]], axis=1)
  line_S = next_SN[:, _NEWLINE]
  inside_SN[:, _NEWLINE] = np.where(line_S == dead, 2 * dead, line_S)
  begin_SN = inside_SN.copy()
  begin_SN[:, BETWEEN] = dead + np.arange(dead + 1)
  return ByteAutomaton(
    np.concatenate([begin_SN[:-1], inside_SN]).astype(np.int32),
    np.concatenate([automaton.accepts_S[:-1], automaton.accepts_S]),
  )


def _literal(text: str) -> str:
  """Write a text as a regular expression of any syntax."""
  return "".join(f"\\x{{{ord(character):X}}}" for character in text)
