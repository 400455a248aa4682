# SPDX-License-Identifier: Apache-2.0
"""The scorer of a run; chosen by TaskSpec.scorer."""

from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.generation.samplers import make_sampler, starts_documents
from lmjax.models.neural_cache import CacheOptions
from lmjax.scoring.conditional import PairScorer
from lmjax.scoring.language_model import TextScorer


def text_scorer(
  config: ConfigDict,
  task: Any,
  model: nn.Module,
  tokenizer: Tokenizer,
  cache: CacheOptions | None = None,
) -> TextScorer:
  """Return a scorer of running text, with the state kept as in evaluation."""
  max_context = model.max_context
  carries = max_context is None or task.stateful
  seq_len = config.data.seq_len if carries else max_context
  if cache:
    model, carries = cache.wrap(model, carries_model=carries), True
  return TextScorer(
    model, tokenizer, seq_len, carries, starts_documents(config)
  )


def continuation_scorer(
  config: ConfigDict,
  task: Any,
  model: nn.Module,
  tokenizer: Tokenizer,
  cache: CacheOptions | None = None,
) -> PairScorer:
  """Return a scorer of continuations of a bidirectional prompt."""
  del task, cache
  return PairScorer(model, make_sampler(config, model, tokenizer))


def target_scorer(
  config: ConfigDict,
  task: Any,
  model: nn.Module,
  tokenizer: Vocabularies,
  cache: CacheOptions | None = None,
) -> PairScorer:
  """Return a scorer of target sequences given a source."""
  del task, cache
  sampler = make_sampler(config, model, tokenizer)
  return PairScorer(model, sampler, tokenizer.tokenizers["source"])
