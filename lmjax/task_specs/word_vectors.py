# SPDX-License-Identifier: Apache-2.0
"""Word vectors: skip-gram, CBOW (word2vec) and GloVe."""

from typing import Any

from ml_collections import ConfigDict

from lmjax.task_specs import loaders
from lmjax.task_specs.key import Key, above_zero, positive
from lmjax.task_specs.task_spec import TaskSpec

_CONTEXT = dict(
  context_size=positive(5),  # words on either side of a word
)
_WORD2VEC = dict(
  **_CONTEXT,
  # Fraction of the text above which a word is subsampled; 0 disables.
  subsample=Key(1e-3),
  num_negatives=Key(5.0),  # negative words per pair (k in the paper)
  num_sampled=positive(64),  # negative words shared by a row of a batch
  noise_exponent=Key(0.75),  # of the counts that negatives are sampled by
)


def _build_skip_gram(config: ConfigDict, model: Any, corpus: Any) -> Any:
  from lmjax.tasks.word_vectors import SkipGram

  del corpus
  return SkipGram(model, config.word_vectors.num_negatives)


def _build_cbow(config: ConfigDict, model: Any, corpus: Any) -> Any:
  from lmjax.tasks.word_vectors import CBOW

  del corpus
  return CBOW(model, config.word_vectors.num_negatives)


def _build_glove(config: ConfigDict, model: Any, corpus: Any) -> Any:
  from lmjax.tasks.word_vectors import GloVe

  del corpus
  options = config.word_vectors
  return GloVe(model, options.x_max, options.weight_exponent)


def _context_windows() -> Any:
  from lmjax.data.text.examples import context_windows

  return context_windows


def _cooccurrences() -> Any:
  from lmjax.data.text.examples import cooccurrences

  return cooccurrences


SKIP_GRAM = TaskSpec(
  name="skip_gram",
  model_kind="word_vectors",
  build=_build_skip_gram,
  preview=loaders.neighbor_preview,
  keys=dict(word_vectors=_WORD2VEC),
  examples=_context_windows,
  learns_words=True,
)
CBOW = TaskSpec(
  name="cbow",
  model_kind="word_vectors",
  build=_build_cbow,
  preview=loaders.neighbor_preview,
  keys=dict(word_vectors=_WORD2VEC),
  examples=_context_windows,
  learns_words=True,
)
GLOVE = TaskSpec(
  name="glove",
  model_kind="word_vectors",
  build=_build_glove,
  preview=loaders.neighbor_preview,
  keys=dict(
    word_vectors=dict(
      **_CONTEXT,
      x_max=above_zero(100.0),  # count from which on pairs weigh the same
      weight_exponent=Key(0.75),  # α of the weights of smaller counts
    )
  ),
  examples=_cooccurrences,
  model_options=dict(use_biases=True),
  learns_words=True,
  sums_tables=True,  # Pennington et al. 2014, section 4.2
)
