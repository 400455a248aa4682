# SPDX-License-Identifier: Apache-2.0
"""The sampler of a run; selected by TaskSpec.sampler."""

from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UsageError
from lmjax.generation.text_sampler import TextSampler
from lmjax.task_specs import spec_of


def make_sampler(
  config: ConfigDict,
  model: nn.Module,
  tokenizer: Tokenizer | Vocabularies,
  **options: Any,
) -> TextSampler:
  """Return the sampler of a run; `options` are those of TextSampler.

  Raises:
    UsageError: if its task does not generate text.
  """
  spec = spec_of(config)
  if not spec.sampler:
    command = "predict" if spec.has_records else "embed"
    command = "fill" if spec.infiller else command
    raise UsageError(
      f"a run of task={spec.name} does not generate text; use "
      f"scripts/{command}.py."
    )
  if not spec.has_records:
    options["starts_documents"] = starts_documents(config)
  return spec.sampler()(model, tokenizer, **options)


def starts_documents(config: ConfigDict) -> bool:
  """Return whether documents start after `<eos>` in training."""
  return config.data.reset_at_documents and config.data.append_eos
