# SPDX-License-Identifier: Apache-2.0
"""Constraints and guidance, as users specify them."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lmjax.data.tokenizers import Tokenizer
from lmjax.decoding.filters import Automaton, Filter
from lmjax.errors import UsageError
from lmjax.generation.constraints.byte_dfa import (
  both,
  containing,
  fitting,
  matching,
)
from lmjax.generation.constraints.token_dfa import in_time, over_tokens
from lmjax.generation.generator import Request, check_minimum
from lmjax.generation.sampling_params import LARGEST
from lmjax.guidance.model_guidance import ClassifierRun, ExpertRun


def _setting(default: str | float | tuple, text: str) -> dataclasses.Field:
  return dataclasses.field(default=default, metadata=dict(help=text))


@dataclasses.dataclass(frozen=True)
class Control:
  """What there is beside the model to choose the next token by.

  Each field is a flag of scripts/sample.py, which says `help` of it. The
  constraints hold for what is drawn, behind the prompt.

  Raises:
    UsageError: if a number is out of range, or a setting needs another one.
  """

  regex: str = _setting("", "What the text must match as a whole.")
  json_schema: str = _setting("", "File with a schema of the JSON to write.")
  required_words: tuple[str, ...] = _setting(
    (), "Word, or phrase, that must occur."
  )
  expert_workdir: str = _setting("", "Language model to go along with.")
  antiexpert_workdir: str = _setting("", "Language model to turn away from.")
  guidance: float = _setting(1.0, "Weight of the two above.")
  classifier_workdir: str = _setting("", "Run that tells classes of texts.")
  classifier_label: str = _setting("", "The class that the text shall be of.")
  classifier_weight: float = _setting(1.0, "How much that counts.")
  classifier_candidates: int = _setting(50, "Best tokens that it is asked of.")

  def __post_init__(self):
    """Check what can be checked without a run."""
    for name in ("guidance", "classifier_weight"):
      value = getattr(self, name)
      if not 0 <= value <= LARGEST:
        raise UsageError(
          f"{name}={value} must be at least 0, and at most {LARGEST:,.0f}."
        )
    check_minimum(classifier_candidates=self.classifier_candidates)
    if bool(self.classifier_workdir) != bool(self.classifier_label):
      raise UsageError(
        "give both classifier_workdir and classifier_label, or neither."
      )
    if not all(word.strip() for word in self.required_words):
      raise UsageError("must holds an empty word; write one, or leave it out.")

  def __call__(self, tokenizer: Tokenizer) -> "Steering":
    """Make the automata and open the runs that are named.

    Args:
      tokenizer: what the texts are written in.

    Raises:
      UsageError: if no text can be as it must be, or a run does not fit.
      UserError: if a run cannot be opened.
    """
    automata = [containing(word) for word in self.required_words]
    if self.regex:
      automata.append(matching(self.regex))
    if self.json_schema:
      automata.append(fitting(_read(self.json_schema)))
    experts = [
      (ExpertRun(workdir, tokenizer), weight)
      for workdir, weight in (
        (self.expert_workdir, self.guidance),
        (self.antiexpert_workdir, -self.guidance),
      )
      if workdir
    ]
    classifier = None
    if self.classifier_workdir:
      classifier = ClassifierRun(
        self.classifier_workdir,
        self.classifier_label,
        tokenizer,
        self.classifier_weight,
        self.classifier_candidates,
      )
    automaton = None
    if automata:
      automaton = over_tokens(functools.reduce(both, automata), tokenizer)
    return Steering(automaton, experts, classifier)


class Steering(NamedTuple):
  """What is ready to steer texts of one tokenizer.

  Attributes:
    automaton: what texts must be; None for anything.
    experts: language models and their weights.
    classifier: what prefers a class; None for nothing.
  """

  automaton: Automaton | None
  experts: list[tuple[ExpertRun, float]]
  classifier: ClassifierRun | None

  def __call__(self, requests: Sequence[Request]) -> tuple[Filter, ...]:
    """Return the filters for texts that are drawn together.

    They come before those that make a choice smaller, and constraints before
    what is asked of the most likely tokens.

    Raises:
      UsageError: if the texts have too few tokens, or too many.
    """
    filters = []
    if self.automaton is not None:
      num_tokens = min(request.num_tokens for request in requests)
      filters.append(in_time(self.automaton, num_tokens))
    filters += [expert(requests, weight) for expert, weight in self.experts]
    if self.classifier is not None:
      filters.append(self.classifier(requests))
    return tuple(filters)


def _read(path: str) -> str:
  try:
    return Path(path).read_text(encoding="utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise UsageError(
      f"json_schema={path} cannot be read: {error}; give a file with a JSON "
      "schema."
    ) from None
