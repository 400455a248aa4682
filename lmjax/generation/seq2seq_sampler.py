# SPDX-License-Identifier: Apache-2.0
"""Source text in, target text out, with an encoder–decoder."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from lmjax.data.records.schemas.seq2seq import target_tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UsageError
from lmjax.generation.requests import Request, check_length
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.text_sampler import TextSampler


class Seq2SeqSampler(TextSampler):
  """Generate target texts for source texts.

  The prompts of TextSampler are source texts here. Targets start after `<bos>`,
  as in training.

  Args:
    model: an encoder–decoder with the contract of lmjax.models.
    vocabularies: the tokenizers of sources and targets.
    **options: see TextSampler.
  """

  reads_sources = True

  def __init__(
    self, model: nn.Module, vocabularies: Vocabularies, **options: Any
  ):
    super().__init__(model, target_tokenizer(vocabularies), **options)
    self._source_tokenizer = vocabularies.tokenizers["source"]

  def requests(
    self, prompts: Sequence[str], params: SamplingParams
  ) -> list[Request]:
    """Return the requests of sources, all samples of the first source first.

    Targets end at the model's context: earlier tokens would be forgotten.

    Raises:
      UsageError: if a source has no token, or more than the model's context
        holds.
    """
    num_tokens = params.num_tokens
    if self._max_context is not None:
      num_tokens = min(num_tokens, self._max_context)
    return [
      Request(
        np.array([self.tokenizer.bos_id]),
        num_tokens,
        params.seed,
        sample,
        source,
        stop_strings=tuple(params.stop),
      )
      for source in (self.encode(x, params.control_code) for x in prompts)
      for sample in range(params.num_samples)
    ]

  def encode(self, prompt: str, control_code: str = "") -> np.ndarray:
    """Return the tokens of a source, followed by `<eos>`.

    Raises:
      UsageError: if it has no token, or more than the model's context holds, or
        if there is a control code.
    """
    if control_code:
      raise UsageError(
        "control codes are not supported by seq2seq runs (got control_code="
        f"{control_code})."
      )
    tokenizer = self._source_tokenizer
    tokens = np.append(tokenizer.encode(prompt), tokenizer.eos_id)
    if len(tokens) == 1:
      raise UsageError("the source text is empty; give some text.")
    check_length(self._max_context, tokens, "source")
    return tokens
