# SPDX-License-Identifier: Apache-2.0
"""Constraints on generated text, as users specify them."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lmjax.data.tokenizers import Tokenizer
from lmjax.decoding.logits_processors import Automaton, LogitsProcessor
from lmjax.errors import UsageError
from lmjax.generation.constraints.byte_dfa import (
  containing_word,
  from_json_schema,
  from_regex,
  intersection,
)
from lmjax.generation.constraints.token_dfa import over_tokens, with_limit
from lmjax.generation.requests import Request


def _field(default: Any, text: str) -> dataclasses.Field:
  return dataclasses.field(default=default, metadata=dict(help=text))


@dataclasses.dataclass(frozen=True)
class Constraints:
  """What a generated text must match; a Steering.

  Each field is also a flag of scripts/sample.py with the same help text. The
  constraints apply to the generated text, not to the prompt.

  >>> run.generate("Dear ", constraints=Constraints(regex="[A-Z][a-z]+,"))

  Raises:
    UsageError: if a required word is empty.
  """

  regex: str = _field("", "Regular expression that the whole text must match.")
  json_schema: str = _field("", "File with the JSON schema of the text.")
  required_words: tuple[str, ...] = _field(
    (), "Word or phrase that must occur."
  )

  def __post_init__(self):
    """Check the words."""
    if not all(word.strip() for word in self.required_words):
      raise UsageError("required_words must not contain an empty word.")

  def bind(self, tokenizer: Tokenizer) -> "BoundConstraints":
    """Build the automaton over the tokens of a tokenizer.

    Raises:
      UsageError: if the schema cannot be read, or no text can match.
    """
    automata = [containing_word(word) for word in self.required_words]
    if self.regex:
      automata.append(from_regex(self.regex))
    if self.json_schema:
      automata.append(from_json_schema(_read(self.json_schema)))
    if not automata:
      return BoundConstraints(None)
    return BoundConstraints(
      over_tokens(functools.reduce(intersection, automata), tokenizer)
    )


class BoundConstraints(NamedTuple):
  """Constraints as an automaton over tokens; None for no constraint."""

  automaton: Automaton | None

  def logits_processors(
    self, requests: Sequence[Request]
  ) -> Sequence[LogitsProcessor]:
    """Return the logits processors for a batch of requests.

    Raises:
      UsageError: if no matching text is short enough.
    """
    if self.automaton is None:
      return ()
    num_tokens = min(request.num_tokens for request in requests)
    return (with_limit(self.automaton, num_tokens),)


def _read(path: str) -> str:
  try:
    return Path(path).read_text(encoding="utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise UsageError(
      f"json_schema={path} cannot be read: {error}; give a file with a JSON "
      "schema."
    ) from None
