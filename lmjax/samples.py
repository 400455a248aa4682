# SPDX-License-Identifier: Apache-2.0
"""What training shows of itself, by task.

Each function gets a task's name, the objects of a run and the `sample` section
of its config, and returns what turns variables into text. Settings that cannot
be are found before anything is compiled.
"""

from collections.abc import Callable

import flax.linen as nn
from ml_collections import ConfigDict

from lmjax.data.tokenizers import Tokenizer
from lmjax.errors import UsageError
from lmjax.text_filler import BLANK, FILLERS
from lmjax.text_sampler import SAMPLERS, check_positive, make_filters
from lmjax.types import PyTree

Sample = Callable[[PyTree], str]


def continuation(
  task: str, model: nn.Module, tokenizer: Tokenizer, config: ConfigDict
) -> Sample:
  """Go on from the prompt."""
  sampler = SAMPLERS[task](model, tokenizer)
  sampler.encode(config.prompt)
  _check(config)
  return lambda variables: sampler(variables, **config)[0]


def filling(
  task: str, model: nn.Module, tokenizer: Tokenizer, config: ConfigDict
) -> Sample:
  """Fill the blanks of the prompt."""
  if BLANK not in config.prompt:
    raise UsageError(
      f"sample.prompt={config.prompt!r} has no blank {BLANK}, and task={task} "
      "fills blanks; write one, or set train.sample_every=0."
    )
  filler = FILLERS[task](model, tokenizer)
  filler.encode(config.prompt)
  _check(config)
  settings = dict(config)
  text = settings.pop("prompt")
  return lambda variables: filler(variables, text, **settings).texts[0]


def either(
  task: str, model: nn.Module, tokenizer: Tokenizer, config: ConfigDict
) -> Sample:
  """Fill the blank of the prompt, or go on from it if it has none."""
  show = filling if BLANK in config.prompt else continuation
  return show(task, model, tokenizer, config)


def _check(config: ConfigDict) -> None:
  make_filters(config.temperature, config.top_k, config.top_p)
  check_positive(num_tokens=config.num_tokens)


# Task → what training shows of a model that learns it.
SAMPLES = {
  "language_modeling": continuation,
  "prefix_lm": continuation,
  "fill_in_the_middle": either,
  "masked_lm": filling,
  "span_corruption": filling,
}
