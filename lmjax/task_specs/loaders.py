# SPDX-License-Identifier: Apache-2.0
"""Loaders that several tasks share."""

from typing import Any


def token_sequences() -> Any:
  """Load what takes sequences as they are: each token with the next one."""
  from lmjax.data.text.examples import token_sequences

  return token_sequences


def rewritten_sequences() -> Any:
  """Load what rewrites sequences as the objective of the task does."""
  from lmjax.data.text.examples import rewritten_sequences

  return rewritten_sequences


def text_sampler() -> Any:
  """Load the sampler of decoder-only models."""
  from lmjax.generation.text_sampler import TextSampler

  return TextSampler


def text_scorer() -> Any:
  """Load the scorer of running text."""
  from lmjax.scoring.scorers import text_scorer

  return text_scorer


def continuation_preview() -> Any:
  """Load the preview that continues `preview.prompt`."""
  from lmjax.training.previews import continuation

  return continuation


def infilling_preview() -> Any:
  """Load the preview that fills the blanks of `preview.prompt`."""
  from lmjax.training.previews import infilling

  return infilling


def prediction_preview() -> Any:
  """Load the preview that predicts the first validation records."""
  from lmjax.training.previews import predictions

  return predictions


def neighbor_preview() -> Any:
  """Load the preview that lists the nearest words of each prompt word."""
  from lmjax.training.previews import neighbors

  return neighbors
