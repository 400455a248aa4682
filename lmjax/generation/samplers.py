# SPDX-License-Identifier: Apache-2.0
"""The sampler of a run, chosen by its task."""

from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.generation.text_sampler import TextSampler
from lmjax.task_specs import spec_of


def make_sampler(
  config: ConfigDict,
  model: nn.Module,
  tokenizer: Tokenizer | Vocabularies,
  **options: Any,
) -> TextSampler:
  """Return what generates text as a run has learned to; see TextSampler."""
  spec = spec_of(config)
  if not spec.has_records:
    options["opens_documents"] = opens_documents(config)
  return spec.sampler()(model, tokenizer, **options)


def opens_documents(config: ConfigDict) -> bool:
  """Return whether documents started after `<eos>` in training."""
  return config.data.reset_at_documents and config.data.append_eos
