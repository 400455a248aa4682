# SPDX-License-Identifier: Apache-2.0
"""What turns token sequences into the batches of a task; see TaskSpec.examples.

Each function returns batches by number, from the sequences of a split. What is
counted in the training text is computed once, from a function that opens it,
and cached.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from lmjax.data.text.batching import Rows, ShuffledSequences
from lmjax.data.text.cooccurrences import Entries, open_cooccurrences
from lmjax.data.text.objectives.objective import Objective, Rewritten
from lmjax.data.text.stream import TokenStream
from lmjax.data.text.word_windows import WordWindows
from lmjax.data.tokenizers import Tokenizer

OpenStream = Callable[[], TokenStream]


def token_sequences(
  config: ConfigDict,
  objective: Objective,
  rows: Rows,
  open_train: OpenStream,
  tokenizer: Tokenizer,
  cache_dir: Path,
) -> Rows:
  """Take sequences as they are: each token with the next one as its target."""
  del config, objective, open_train, tokenizer, cache_dir
  return rows


def rewritten_sequences(
  config: ConfigDict,
  objective: Objective,
  rows: Rows,
  open_train: OpenStream,
  tokenizer: Tokenizer,
  cache_dir: Path,
) -> Rewritten:
  """Rewrite sequences as the objective of the task does."""
  del config, open_train, cache_dir
  return objective.over(rows, tokenizer)


def context_windows(
  config: ConfigDict,
  objective: Objective,
  rows: Rows,
  open_train: OpenStream,
  tokenizer: Tokenizer,
  cache_dir: Path,
) -> WordWindows:
  """Sample context words and negative words, as word2vec does."""
  del objective, cache_dir
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
  objective: Objective,
  rows: Rows,
  open_train: OpenStream,
  tokenizer: Tokenizer,
  cache_dir: Path,
) -> Entries:
  """Count which words occur near each other, as GloVe does."""
  del objective, open_train
  entries = open_cooccurrences(
    rows.stream, is_word(tokenizer), config.word_vectors.context_size, cache_dir
  )
  return Entries(entries, rows, isinstance(rows, ShuffledSequences))


def is_word(tokenizer: Tokenizer) -> np.ndarray:
  """Tell words from specials and white space, bool [V]."""
  texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
  words_V = np.array([bool(text.strip()) for text in texts])
  words_V[list(tokenizer.special_ids)] = False
  return words_V
