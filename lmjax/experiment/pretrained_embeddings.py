# SPDX-License-Identifier: Apache-2.0
"""Embedding tables: initialized from word vectors, and exported as such."""

import itertools
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lmjax.data.text.examples import is_word
from lmjax.data.tokenizers import Tokenizer
from lmjax.data.word_vectors import WordVectors, name_in_file, read
from lmjax.errors import UsageError
from lmjax.optim.averaging import map_averages
from lmjax.task_specs import spec_of
from lmjax.train_state import TrainState
from lmjax.types import Array, PyTree

# Path of the embedding table in the parameters of every model.
TABLE = ("embedding", "embedding")


class Pretrained(NamedTuple):
  """Pretrained vectors of some tokens of a vocabulary.

  Attributes:
    tokens: ids of N tokens, int32 [N].
    vectors: their vectors, float32 [N, E].
  """

  tokens: np.ndarray
  vectors: np.ndarray

  def coverage(
    self, counts_V: np.ndarray, text_ids: np.ndarray
  ) -> dict[str, float]:
    """Return the fractions of the vocabulary and of the text with vectors.

    Args:
      counts_V: the number of occurrences of each token in the text.
      text_ids: the tokens that are not special.

    Returns:
      "types", the fraction of tokens that are not special; "tokens", that of
      the running text, unknown words included.
    """
    with_vectors = int(np.isin(self.tokens, text_ids).sum())
    return dict(
      types=with_vectors / max(len(text_ids), 1),
      tokens=float(counts_V[self.tokens].sum() / counts_V.sum()),
    )


def read_vectors(path: str, format: str, tokenizer: Tokenizer) -> Pretrained:
  """Read the vectors of a file whose words are tokens.

  Args:
    path: the file.
    format: value of `pretrained.format`.
    tokenizer: the tokenizer of the embedding table.
  """
  tokens = {
    name_in_file(name): token for token, name in enumerate(tokenizer.names())
  }
  words, vectors = read(path, format, wanted=tokens)
  index = np.array([tokens[word] for word in words], np.int32)
  return Pretrained(index, vectors)


def table_of(params: PyTree, model: str) -> Array:
  """Return the embedding table of a model, [V, E].

  Args:
    params: the parameters of the model.
    model: its name, for the message.

  Raises:
    UsageError: if the model has none.
  """
  table = params
  for name in TABLE:
    table = table.get(name, {})
  if not hasattr(table, "shape"):
    raise UsageError(
      f"model.name={model} has no embedding table with one vector per token; "
      "choose another model."
    )
  return table


def check_width(pretrained: Pretrained, table: Array, path: str) -> None:
  """Check that vectors are as wide as an embedding table.

  Raises:
    UsageError: naming both widths.
  """
  found, wanted = pretrained.vectors.shape[1], table.shape[1]
  if found != wanted:
    raise UsageError(
      f"pretrained.vectors={path} has vectors of width {found}, and the "
      f"model's embedding has width {wanted}; make them equal."
    )


def put_in(state: TrainState, pretrained: Pretrained) -> TrainState:
  """Return a state whose embedding table has the pretrained vectors.

  They also replace rows of averages of the table. Other rows keep their initial
  values. The vectors are arguments of the compiled program: as constants in it
  they would exist twice and slow down compilation.
  """

  def put(params: PyTree) -> PyTree:
    module, leaf = TABLE
    table = _write_rows(params[module][leaf], *pretrained)
    return {**params, module: {**params[module], leaf: table}}

  return state.replace(
    params=put(state.params), opt_state=map_averages(put, state.opt_state)
  )


@jax.jit
def _write_rows(table_VE: Array, tokens: Array, vectors: Array) -> Array:
  return table_VE.at[tokens].set(vectors.astype(table_VE.dtype))


def learned_vectors(
  params: PyTree, config: ConfigDict, tokenizer: Tokenizer
) -> WordVectors:
  """Return the vectors that a run has learned for its tokens.

  These are the rows of the embedding table; for GloVe, the sums of the rows of
  both tables (Pennington et al. 2014, section 4.2). Tasks that learn word
  vectors have vectors of words only, not of punctuation or white space.
  """
  spec = spec_of(config)
  vectors_VE = np.asarray(table_of(params, config.model.name), np.float32)
  if spec.sums_tables:
    vectors_VE = vectors_VE + np.asarray(params["output"]["table"], np.float32)
  learned_V = np.ones(len(vectors_VE), bool)
  if spec.learns_words:
    learned_V = is_word(tokenizer)
  names = itertools.compress(tokenizer.names(), learned_V)
  return WordVectors(list(names), vectors_VE[learned_V])
