# SPDX-License-Identifier: Apache-2.0
"""What a run shows of itself now and then, by its task.

Each function gets an experiment, looks for mistakes in the section `sample` of
its config, which must not show hours later, and returns what turns the model's
variables into a text.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from lmjax import strict_json
from lmjax.data.records.schemas import SCHEMAS
from lmjax.data.tokenizers import UNK, Tokenizer
from lmjax.data.vocabularies import Vocabularies
from lmjax.errors import UsageError
from lmjax.experiment.experiment import Experiment
from lmjax.experiment.pretrained_embeddings import learned_vectors
from lmjax.generation.generator import check_positive
from lmjax.generation.infilling import BLANK, FILLERS
from lmjax.generation.sampling_params import SamplingParams
from lmjax.generation.seq2seq_sampler import Seq2SeqSampler
from lmjax.generation.text_sampler import TextSampler
from lmjax.prediction.predictor import Predictor
from lmjax.prediction.word_similarity import WordSpace
from lmjax.types import PyTree

Show = Callable[[PyTree], str]

# Task → what draws texts from a model that learned it.
SAMPLERS: dict[str, Callable[..., TextSampler]] = {
  "language_modeling": TextSampler,
  "prefix_lm": functools.partial(TextSampler, reads_prefix=True),
  "fill_in_the_middle": TextSampler,
  "control_codes": TextSampler,
  "seq2seq": Seq2SeqSampler,
}


def make_sampler(
  config: ConfigDict,
  model: nn.Module,
  tokenizer: Tokenizer | Vocabularies,
  **options: Any,
) -> TextSampler:
  """Make what draws texts as a run has learned to; see TextSampler."""
  if config.task not in SCHEMAS:
    options["opens_documents"] = opens_documents(config)
  return SAMPLERS[config.task](model, tokenizer, **options)


def opens_documents(config: ConfigDict) -> bool:
  """Say whether texts began behind `<eos>` in training."""
  return config.data.reset_at_documents and config.data.append_eos


def continuation(experiment: Experiment) -> Show:
  """Let the model go on from the prompt."""
  config = experiment.config
  sample = config.sample
  sampler = make_sampler(config, experiment.model, experiment.tokenizer)
  sampler.encode(sample.prompt, sample.code)
  SamplingParams(sample.temperature, sample.top_k, sample.top_p)
  check_positive(num_tokens=sample.num_tokens)
  return lambda variables: sampler(variables, **sample)[0]


def filling(experiment: Experiment) -> Show:
  """Let the model fill the blanks of the prompt."""
  config = experiment.config
  settings = dict(config.sample)
  prompt, _ = settings.pop("prompt"), settings.pop("code")
  if BLANK not in prompt:
    raise UsageError(
      f"sample.prompt={prompt!r} has no blank {BLANK}, and task={config.task} "
      "fills blanks; write one, or set train.sample_every=0."
    )
  filler = FILLERS[config.task](experiment.model, experiment.tokenizer)
  filler.encode(prompt)
  SamplingParams(settings["temperature"], settings["top_k"], settings["top_p"])
  check_positive(num_tokens=settings["num_tokens"])
  return lambda variables: filler(variables, prompt, **settings).texts[0]


def filling_or_continuation(experiment: Experiment) -> Show:
  """Let the model fill the blank of the prompt, or go on if it has none."""
  has_blank = BLANK in experiment.config.sample.prompt
  return (filling if has_blank else continuation)(experiment)


def neighbors(experiment: Experiment) -> Show:
  """List the nearest words of each word of the prompt."""
  config, tokenizer = experiment.config, experiment.tokenizer
  sample, words = config.sample, []
  check_positive(num_tokens=sample.num_tokens)
  for word in sample.prompt.split():
    tokens = tokenizer.encode(word)
    if len(tokens) != 1 or tokens[0] == UNK:
      raise UsageError(
        f"sample.prompt={sample.prompt} holds {word!r}, which is not in the "
        "vocabulary of the training text; choose other words."
      )
    words.append(tokenizer.names()[tokens[0]])

  def show(variables: PyTree) -> str:
    space = WordSpace(*learned_vectors(variables["params"], config, tokenizer))
    return "\n".join(space.describe(word, sample.num_tokens) for word in words)

  return show


def predictions(experiment: Experiment) -> Show:
  """Predict the first rows of valid."""
  number = experiment.config.sample.num_rows
  rows = list(itertools.islice(experiment.corpus.rows("valid"), number))
  predictor = Predictor(experiment, batch_size=max(number, 1))

  def show(variables: PyTree) -> str:
    pairs = predictor(variables, rows)
    return "\n".join(
      strict_json.dumps({**row, "predicted": made}) for row, made in pairs
    )

  return show


SAMPLES: dict[str, Callable[..., Show]] = {
  "language_modeling": continuation,
  "prefix_lm": continuation,
  "fill_in_the_middle": filling_or_continuation,
  "control_codes": continuation,
  "masked_lm": filling,
  "span_corruption": filling,
  "skip_gram": neighbors,
  "cbow": neighbors,
  "glove": neighbors,
  **dict.fromkeys(SCHEMAS, predictions),
}
