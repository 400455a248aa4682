# SPDX-License-Identifier: Apache-2.0
"""Text in, another text out: an encoder–decoder and the generation loop."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from lmjax.data.records.schemas.seq2seq import target_tokenizer
from lmjax.data.tokenizers import BOS, EOS
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UsageError
from lmjax.generation.generator import Request, check_length, check_positive
from lmjax.generation.text_sampler import TextSampler


class Seq2SeqSampler(TextSampler):
  """Draw texts for other texts, as a model has learned from pairs.

  All that TextSampler calls a prompt is a source here, which the encoder reads;
  what is drawn begins behind `<bos>`, as targets do.

  Args:
    model: an encoder–decoder, with the contract of lmjax.models.
    vocabularies: what sources and targets are written in.
    **options: see Generator.
  """

  reads_sources = True

  def __init__(
    self, model: nn.Module, vocabularies: Vocabularies, **options: Any
  ):
    super().__init__(model, target_tokenizer(vocabularies), **options)
    self._source_tokenizer = vocabularies.tokenizers["source"]

  def requests(
    self,
    prompts: Sequence[str],
    num_tokens: int,
    num_samples: int = 1,
    seed: int = 0,
    code: str = "",
  ) -> list[Request]:
    """Ask for targets of sources, all of the first one first.

    A target ends where the model's context does, for what is before it would
    be forgotten.

    Raises:
      UsageError: if a number is out of range, or a source has no token or more
        than the model's context holds.
    """
    check_positive(num_samples=num_samples, num_tokens=num_tokens)
    if self._context is not None:
      num_tokens = min(num_tokens, self._context)
    return [
      Request(np.array([BOS]), num_tokens, seed, sample, source)
      for source in (self.encode(prompt, code) for prompt in prompts)
      for sample in range(num_samples)
    ]

  def encode(self, prompt: str, code: str = "") -> np.ndarray:
    """Turn a source into tokens, `<eos>` behind them.

    Raises:
      UsageError: if it has no token or more than the model's context holds, or
        if there is a control code.
    """
    if code:
      raise UsageError(f"texts for others stand under no code, as {code!r} is.")
    tokens = np.append(self._source_tokenizer.encode(prompt), EOS)
    if len(tokens) == 1:
      raise UsageError("the source has no token; give some text.")
    check_length(self._context, tokens, "source")
    return tokens
