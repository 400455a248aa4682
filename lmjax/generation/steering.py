# SPDX-License-Identifier: Apache-2.0
"""The protocol of constraints and guidance."""

from collections.abc import Sequence
from typing import Protocol

from lmjax.data.tokenizers import Tokenizer
from lmjax.decoding.logits_processors import LogitsProcessor
from lmjax.generation.requests import Request


class BoundSteering(Protocol):
  """Constraints or guidance for texts of one tokenizer."""

  def logits_processors(
    self, requests: Sequence[Request]
  ) -> Sequence[LogitsProcessor]:
    """Return the logits processors for a batch of requests.

    Raises:
      UsageError: if the texts have too few tokens, or too many.
    """


class Steering(Protocol):
  """Constraints or guidance as users specify them; hashable."""

  def bind(self, tokenizer: Tokenizer) -> BoundSteering:
    """Prepare what depends on the tokenizer.

    Raises:
      UserError: if no text satisfies the constraints, or a run is unsuitable.
    """
