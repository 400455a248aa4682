# SPDX-License-Identifier: Apache-2.0
"""What a run shows of itself now and then, by its task.

Each function gets a config, the model and the tokenizer, looks for mistakes in
the section `sample`, which must not show hours later, and returns what turns
the model's variables into a text.
"""

from collections.abc import Callable

import flax.linen as nn
from ml_collections import ConfigDict

from lmjax.analysis.word_similarity import WordSpace
from lmjax.data.tokenizers import UNK, Tokenizer
from lmjax.embedding import learned_vectors
from lmjax.errors import UsageError
from lmjax.text_sampler import TextSampler, check_positive, make_filters
from lmjax.types import PyTree

Show = Callable[[PyTree], str]


def continuation(
  config: ConfigDict, model: nn.Module, tokenizer: Tokenizer
) -> Show:
  """Let the model go on from the prompt."""
  sample, sampler = config.sample, TextSampler(model, tokenizer)
  sampler.encode(sample.prompt)
  make_filters(sample.temperature, sample.top_k, sample.top_p)
  check_positive(num_tokens=sample.num_tokens)
  return lambda variables: sampler(variables, **sample)[0]


def neighbors(
  config: ConfigDict, model: nn.Module, tokenizer: Tokenizer
) -> Show:
  """List the nearest words of each word of the prompt."""
  del model
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


SAMPLES: dict[str, Callable[..., Show]] = {
  "language_modeling": continuation,
  "skip_gram": neighbors,
  "cbow": neighbors,
  "glove": neighbors,
}
