# SPDX-License-Identifier: Apache-2.0
"""Deterministic finite automata over the bytes of a text; NumPy only.

Dimension letters:

    P  pairs of states of two automata
"""

import re
from typing import NamedTuple

import numpy as np
from outlines_core import Index, Vocabulary
from outlines_core.json_schema import build_regex_from_schema

from lmjax.errors import UsageError

# A symbol after all bytes: the boundary at which a tokenizer joins two words.
WORD_BOUNDARY = 256
MAX_STATES = 1 << 15
MAX_PAIRS = 1 << 26  # states of the product of two automata
_EOS = 256  # an end token, which the library requires
_SPACE, _NEWLINE = ord(" "), ord("\n")
_LAST_DOLLAR = re.compile(r"(?<!\\)((?:\\\\)*)\$\Z")
# ASCII characters that are not part of a word.
_OUTSIDE = r"[\x01-/:-@\[-^`{-\x7F]"


class ByteAutomaton(NamedTuple):
  """A transition table; texts start in state 0.

  Attributes:
    next_UN: int32, the state after each of N symbols: the bytes, and optionally
      `WORD_BOUNDARY`. The last state is the dead state, from which no text is
      accepted.
    accepts_U: whether a text may end in a state.
  """

  next_UN: np.ndarray
  accepts_U: np.ndarray

  def accepts(self, text: bytes) -> bool:
    """Return whether the automaton accepts a text."""
    state = 0
    for byte in text:
      state = self.next_UN[state, byte]
    return bool(self.accepts_U[state])


def from_regex(pattern: str) -> ByteAutomaton:
  r"""Return an automaton for the texts that match a regular expression.

  The whole text must match.

  Args:
    pattern: in the syntax of Rust's regex: that of Python without look-around,
      back references and `\b`; `^` only at the start and `$` only at the end.
      No text contains the character 0.

  Raises:
    UsageError: if it is invalid, matches nothing, or is too large.
  """
  # From a state in which a match may end, the library omits transitions that
  # need more than one byte to the next such state. So matches end in byte 0.
  whole = _LAST_DOLLAR.sub(r"\1", pattern).removeprefix("^")
  ended = rf"(?:{whole})\x00"
  alphabet = {bytes([byte]): [byte] for byte in range(256)}
  try:
    index = Index(ended, Vocabulary(_EOS, alphabet))
  except ValueError as error:
    if "Failed to build DFA" in str(error):
      raise UsageError(
        f"the regular expression {pattern} is invalid, or has look-around, "
        r"back references or \b, which are not supported; rewrite it."
      ) from None
    raise UsageError(
      f"the regular expression {pattern} has parts that no text can match; "
      "remove them."
    ) from None
  transitions, ends = index.get_transitions(), index.get_final_states()
  if len(transitions) > MAX_STATES:
    raise UsageError(
      f"the regular expression has {len(transitions):,} states, but the limit "
      f"is {MAX_STATES:,}; use fewer or shorter repetitions."
    )
  start = index.get_initial_state()
  states = [start, *sorted(transitions.keys() - {start})]
  number = {state: index for index, state in enumerate(states)}
  dead = len(states)
  next_UN = np.full((dead + 1, 256), dead, np.int32)
  for state, targets in transitions.items():
    for byte, target in targets.items():
      if 0 < byte < 256:
        next_UN[number[state], byte] = number[target]
  accepts = [transitions[state].get(0) in ends for state in states]
  return ByteAutomaton(next_UN, np.array([*accepts, False]))


def from_json_schema(schema: str) -> ByteAutomaton:
  """Return an automaton for JSON that conforms to a schema.

  Fields are in the order of the schema, with at most one space between tokens.
  Limits of numbers are ignored, because the library does not support them.

  Args:
    schema: a JSON schema, as text.

  Raises:
    UsageError: if it is invalid or not supported by the library.
  """
  try:
    pattern = build_regex_from_schema(schema)
  except TypeError:
    raise UsageError("the JSON schema is not valid JSON; correct it.") from None
  except ValueError as error:
    reason = str(error).splitlines()[0].strip().rstrip(".")
    raise UsageError(
      f"the JSON schema is not supported ({reason}); remove this part."
    ) from None
  return from_regex(pattern)


def containing_word(word: str) -> ByteAutomaton:
  """Return an automaton for texts that contain a word or phrase.

  It must not be part of a longer word: next to its letters is the start or end
  of the text, or an ASCII character other than letters, digits and underscore.
  """
  is_outside = re.compile(_OUTSIDE).match
  before = "" if is_outside(word[:1]) else _OUTSIDE
  after = "" if is_outside(word[-1:]) else _OUTSIDE
  return from_regex(f"(?s)(?:.*{before})?{_literal(word)}(?:{after}.*)?")


def intersection(a: ByteAutomaton, b: ByteAutomaton) -> ByteAutomaton:
  """Return an automaton for the texts that two automata accept.

  State (i, j) of the product is numbered i · `width` + j; only those that a
  text can reach are kept.

  Raises:
    UsageError: if the product is too large.
  """
  width, number_of_pairs = len(b.next_UN), len(a.next_UN) * len(b.next_UN)
  if number_of_pairs > MAX_PAIRS:
    raise UsageError(
      f"the constraints together have {number_of_pairs:,} states, which is too "
      "many; require fewer or shorter words, or a simpler regular expression."
    )
  alive = np.ones((len(a.next_UN), width), bool)
  alive[-1] = alive[:, -1] = False
  alive_P, dead = alive.reshape(-1), number_of_pairs - 1
  number_P = np.full(number_of_pairs, -1)  # in the order of discovery
  number_P[0], found, rows = 0, [0], []
  frontier = np.array([0])
  while len(frontier):
    next_FN = a.next_UN[frontier // width].astype(np.int64) * width
    next_FN += b.next_UN[frontier % width]
    rows.append(np.where(alive_P[next_FN], next_FN, dead))
    frontier = np.unique(rows[-1])
    frontier = frontier[(number_P[frontier] < 0) & (frontier != dead)]
    number_P[frontier] = len(found) + np.arange(len(frontier))
    found += frontier.tolist()
  number_P[dead] = len(found)
  pairs = np.array(found)
  accepts_U = a.accepts_U[pairs // width] & b.accepts_U[pairs % width]
  dead_1N = np.full((1, next_FN.shape[1]), dead)
  return ByteAutomaton(
    number_P[np.concatenate([*rows, dead_1N])].astype(np.int32),
    np.append(accepts_U, False),
  )


def with_spaces(automaton: ByteAutomaton) -> ByteAutomaton:
  r"""Add the symbol `WORD_BOUNDARY`, a space except at line starts.

  This is how word tokenizers join tokens: "a", "b", newline, "c" is "a b\nc".
  The boundary precedes each word but no newline, so the automaton must also
  remember whether it is at the start of a line: every state is doubled.
  """
  next_UN = automaton.next_UN
  dead = len(next_UN) - 1  # states within a line come after all others
  inside_UN = dead + np.append(next_UN, next_UN[:, [_SPACE]], axis=1)
  line_U = next_UN[:, _NEWLINE]
  inside_UN[:, _NEWLINE] = np.where(line_U == dead, 2 * dead, line_U)
  start_UN = inside_UN.copy()
  start_UN[:, WORD_BOUNDARY] = dead + np.arange(dead + 1)
  return ByteAutomaton(
    np.concatenate([start_UN[:-1], inside_UN]).astype(np.int32),
    np.concatenate([automaton.accepts_U[:-1], automaton.accepts_U]),
  )


def _literal(text: str) -> str:
  """Return a regular expression that matches a text literally."""
  return "".join(f"\\x{{{ord(character):X}}}" for character in text)
