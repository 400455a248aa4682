# SPDX-License-Identifier: Apache-2.0
"""Guidance of generation by other runs, as users specify it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from lmjax.data.tokenizers import Tokenizer
from lmjax.decoding.logits_processors import LogitsProcessor
from lmjax.errors import UsageError, check_positive
from lmjax.generation.requests import Request
from lmjax.generation.sampling_params import LARGEST
from lmjax.guidance.model_guidance import ClassifierRun, ExpertRun


def _field(default: Any, text: str) -> dataclasses.Field:
  return dataclasses.field(default=default, metadata=dict(help=text))


@dataclasses.dataclass(frozen=True)
class Guidance:
  """Other runs that change the distribution of the next token; a Steering.

  Each field is also a flag of scripts/sample.py with the same help text.

  >>> run.generate("The ", guidance=Guidance(expert_workdir="runs/poems"))

  Raises:
    UsageError: if a value is out of range, or one field needs another.
  """

  expert_workdir: str = _field(
    "", "Language model whose log-probabilities are added."
  )
  antiexpert_workdir: str = _field(
    "", "Language model whose log-probabilities are subtracted."
  )
  guidance: float = _field(1.0, "Weight of expert and anti-expert.")
  classifier_workdir: str = _field("", "Classification run.")
  classifier_label: str = _field("", "Class that the text should have.")
  classifier_weight: float = _field(
    1.0, "Weight of the classifier's log-probabilities."
  )
  classifier_candidates: int = _field(
    50, "Number of most likely tokens that the classifier is applied to."
  )

  def __post_init__(self):
    """Check what can be checked without opening a run."""
    for name in ("guidance", "classifier_weight"):
      value = getattr(self, name)
      if not 0 <= value <= LARGEST:
        raise UsageError(f"{name}={value} must be from 0 to {LARGEST:,.0f}.")
    check_positive(classifier_candidates=self.classifier_candidates)
    if bool(self.classifier_workdir) != bool(self.classifier_label):
      raise UsageError(
        "classifier_workdir and classifier_label need each other; give both or "
        "neither."
      )

  def bind(self, tokenizer: Tokenizer) -> "BoundGuidance":
    """Open the runs.

    Args:
      tokenizer: tokenizer of the generated text.

    Raises:
      UsageError: if a run is of an unsuitable task or has another tokenizer.
      UserError: if a run cannot be opened.
    """
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
    return BoundGuidance(experts, classifier)


class BoundGuidance(NamedTuple):
  """Opened runs.

  Attributes:
    experts: language models and their weights.
    classifier: a classifier; None for none.
  """

  experts: list[tuple[ExpertRun, float]]
  classifier: ClassifierRun | None

  def logits_processors(
    self, requests: Sequence[Request]
  ) -> Sequence[LogitsProcessor]:
    """Return the logits processors for a batch of requests.

    The classifier is last, because it is applied to the most likely tokens.

    Raises:
      UsageError: if a text may exceed the context of an expert.
    """
    processors = [expert(requests, weight) for expert, weight in self.experts]
    if self.classifier is not None:
      processors.append(self.classifier(requests))
    return processors
