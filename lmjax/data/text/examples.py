# SPDX-License-Identifier: Apache-2.0
"""What a task's batches hold; to add some, write a function and name it below.

Each function gets a config and windows of a split, and returns batches by
number. For what is counted in the training text it gets a function that opens
it, the tokenizer, and the folder of what need not be made twice.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.loader import Batches
from lmjax.data.text.batching import Rows, ShuffledSequences
from lmjax.data.text.cooccurrences import Entries, open_cooccurrences
from lmjax.data.text.objectives import OBJECTIVES, make_objective
from lmjax.data.text.objectives.objective import Rewritten
from lmjax.data.text.stream import TokenStream
from lmjax.data.text.word_windows import WordWindows
from lmjax.data.tokenizers import SPECIALS, Tokenizer

OpenStream = Callable[[], TokenStream]


def windows(
  config: ConfigDict,
  rows: Rows,
  open_train: OpenStream,
  tokenizer: Tokenizer,
  cache_dir: Path,
) -> Rows:
  """Take the windows as they are: each token with the one that follows."""
  del config, open_train, tokenizer, cache_dir
  return rows


def rewritten(
  config: ConfigDict,
  rows: Rows,
  open_train: OpenStream,
  tokenizer: Tokenizer,
  cache_dir: Path,
) -> Rewritten:
  """Rewrite the windows as the task's objective does."""
  del open_train, cache_dir
  return make_objective(config).over(rows, tokenizer)


def word_windows(
  config: ConfigDict,
  rows: Rows,
  open_train: OpenStream,
  tokenizer: Tokenizer,
  cache_dir: Path,
) -> WordWindows:
  """Draw contexts and negative words, as word2vec does."""
  del cache_dir
  options = config.word_vectors
  return WordWindows(
    rows,
    open_train().counts(tokenizer.vocab_size),
    is_word(tokenizer),
    context_size=options.context_size,
    subsample=options.subsample,
    num_sampled=options.num_sampled,
    noise_exponent=options.noise_exponent,
  )


def cooccurrences(
  config: ConfigDict,
  rows: Rows,
  open_train: OpenStream,
  tokenizer: Tokenizer,
  cache_dir: Path,
) -> Entries:
  """Count which words occur near each other, as GloVe does."""
  del open_train
  entries = open_cooccurrences(
    rows.stream, is_word(tokenizer), config.word_vectors.context_size, cache_dir
  )
  return Entries(entries, rows, isinstance(rows, ShuffledSequences))


def is_word(tokenizer: Tokenizer) -> np.ndarray:
  """Tell words from specials and white space, bool [V]."""
  texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
  words_V = np.array([bool(text.strip()) for text in texts])
  words_V[: len(SPECIALS)] = False
  return words_V


EXAMPLES: dict[str, Callable[..., Batches]] = {
  "language_modeling": windows,
  **dict.fromkeys(OBJECTIVES, rewritten),
  "skip_gram": word_windows,
  "cbow": word_windows,
  "glove": cooccurrences,
}
