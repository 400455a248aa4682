# SPDX-License-Identifier: Apache-2.0
"""Previews of a model during training; selected by TaskSpec.preview.

Each function checks the section `preview` of a config, so that a mistake is
reported before training, and returns a function from variables to text.
"""

import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from lmjax import strict_json
from lmjax.data.corpus import Corpus
from lmjax.errors import UsageError, check_positive
from lmjax.experiment.pretrained_embeddings import learned_vectors
from lmjax.generation.infilling import BLANK
from lmjax.generation.samplers import make_sampler
from lmjax.generation.sampling_params import SamplingParams
from lmjax.prediction.predictor import Predictor
from lmjax.prediction.renderer import Renderer
from lmjax.prediction.word_similarity import WordSpace
from lmjax.task_specs import spec_of
from lmjax.tasks.task import Task
from lmjax.types import PyTree

Show = Callable[[PyTree], str]  # variables of the model → text


def continuation(
  config: ConfigDict,
  task: Task,
  model: nn.Module,
  corpus: Corpus,
  renderer: Renderer | None,
) -> Show:
  """Preview a continuation of `preview.prompt`.

  Raises:
    UsageError: if the prompt cannot be encoded, or a setting is invalid.
  """
  del task, renderer
  preview = config.preview
  sampler = make_sampler(config, model, corpus.tokenizer)
  params = _sampling_params(preview)
  sampler.requests([preview.prompt], params)  # checks prompt and control code
  return lambda variables: (
    sampler.generate(variables, preview.prompt, params).text
  )


def infilling(
  config: ConfigDict,
  task: Task,
  model: nn.Module,
  corpus: Corpus,
  renderer: Renderer | None,
) -> Show:
  """Preview the text with which the blanks of `preview.prompt` are filled.

  Raises:
    UsageError: if the prompt has no blank, or a setting is invalid.
  """
  del task, renderer
  prompt = config.preview.prompt
  if BLANK not in prompt:
    raise UsageError(
      f"preview.prompt={prompt!r} has no blank {BLANK} for task={config.task}; "
      "add one, or set train.preview_every=0."
    )
  infiller = spec_of(config).infiller()(model, corpus.tokenizer)
  infiller.encode(prompt)
  params = _sampling_params(config.preview)
  return lambda variables: infiller(variables, prompt, params).texts[0]


def infilling_or_continuation(
  config: ConfigDict,
  task: Task,
  model: nn.Module,
  corpus: Corpus,
  renderer: Renderer | None,
) -> Show:
  """Preview infilling if the prompt has a blank, else a continuation."""
  show = infilling if BLANK in config.preview.prompt else continuation
  return show(config, task, model, corpus, renderer)


def neighbors(
  config: ConfigDict,
  task: Task,
  model: nn.Module,
  corpus: Corpus,
  renderer: Renderer | None,
) -> Show:
  """Preview the nearest words of each word of `preview.prompt`.

  Raises:
    UsageError: if a word is not in the vocabulary.
  """
  del task, model, renderer
  tokenizer, preview, words = corpus.tokenizer, config.preview, []
  check_positive(num_tokens=preview.num_tokens)
  for word in preview.prompt.split():
    tokens = tokenizer.encode(word)
    if len(tokens) != 1 or tokens[0] == tokenizer.unk_id:
      raise UsageError(
        f"preview.prompt={preview.prompt} contains {word!r}, which is not in "
        "the vocabulary of the training text; choose other words."
      )
    # The tokenizer may have normalized the word, for example to lower case.
    words.append(tokenizer.names()[tokens[0]])

  def show(variables: PyTree) -> str:
    space = WordSpace(*learned_vectors(variables["params"], config, tokenizer))
    return "\n".join(space.describe(word, preview.num_tokens) for word in words)

  return show


def predictions(
  config: ConfigDict,
  task: Any,
  model: nn.Module,
  corpus: Any,
  renderer: Renderer,
) -> Show:
  """Preview predictions for the first `preview.num_rows` validation records."""
  del model
  number = config.preview.num_rows
  rows = list(itertools.islice(corpus.rows("valid"), number))
  # All rows form one batch, so that the preview compiles a single shape.
  predictor = Predictor(task, corpus, renderer, batch_size=max(number, 1))

  def show(variables: PyTree) -> str:
    pairs = predictor(variables, rows)
    return "\n".join(
      strict_json.dumps({**row, "predicted": made}) for row, made in pairs
    )

  return show


def _sampling_params(preview: ConfigDict) -> SamplingParams:
  """Return the sampling parameters of the section `preview`."""
  names = ("num_tokens", "temperature", "top_k", "top_p", "control_code")
  return SamplingParams(**{name: preview[name] for name in names})
