# SPDX-License-Identifier: Apache-2.0
"""Retrieval: exact nearest-neighbor search over the vectors of texts.

Dimension letters:

    Q  queries
"""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.errors import UsageError
from lmjax.prediction.predictor import Predictor
from lmjax.types import Array, PyTree


class Hit(NamedTuple):
  """A retrieved text.

  Attributes:
    text: the text.
    similarity: dot product of the vectors of the query and the text.
  """

  text: str
  similarity: float


class Index:
  """An exact index of vectors on the device, searched by dot product.

  All products are computed, one block of vectors at a time, so that memory for
  scores is Q × block instead of Q × N.

  >>> Index(np.array([[0.0, 1.0], [1.0, 0.0]])).search([[1.0, 0.5]], number=1)
  (array([[1.]], dtype=float32), array([[1]], dtype=int32))

  Args:
    vectors_ND: N vectors; at least one.
    block: number of vectors per block.
  """

  def __init__(self, vectors_ND: np.ndarray, block: int = 65536):
    self._size = len(vectors_ND)
    block = min(block, self._size)
    filled = -self._size % block
    blocks = np.pad(vectors_ND, ((0, filled), (0, 0)))
    self._blocks = jnp.asarray(blocks, jnp.float32).reshape(
      -1, block, vectors_ND.shape[1]
    )

  def search(
    self, queries_QD: np.ndarray, number: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors with the largest dot products.

    Args:
      queries_QD: Q query vectors.
      number: number of results per query; at most N are returned.

    Returns:
      The products, float32 [Q, number], largest first, and the indices of the
      vectors, int32 [Q, number]. Of equal products, the smaller index is first.
    """
    number = min(number, self._size)
    found = _search(self._blocks, jnp.asarray(queries_QD), self._size, number)
    return jax.device_get(found)


@functools.partial(jax.jit, static_argnames=("number",))
def _search(
  blocks: Array, queries_QD: Array, size: int, number: int
) -> tuple[Array, Array]:
  """Search blocks [P, N, D], carrying the best results so far through a scan.

  Args:
    blocks: P blocks of N vectors; the last is padded.
    queries_QD: query vectors.
    size: number of vectors without padding.
    number: number of results per query.
  """
  length = blocks.shape[1]

  def merge(best: tuple[Array, Array], item: tuple[Array, Array]):
    index, vectors_ND = item
    rows_N = index * length + jnp.arange(length)
    # TPUs and recent GPUs would round float32 operands to fewer bits, which
    # changes the order of near-equal results.
    scores_QN = jnp.einsum(
      "QD,ND->QN", queries_QD, vectors_ND, precision="highest"
    )
    scores_QN = jnp.where(rows_N < size, scores_QN, -jnp.inf)
    # `top_k` prefers the smaller index among equal values, so earlier results
    # are concatenated first.
    scores = jnp.concatenate([best[0], scores_QN], axis=1)
    rows_N = jnp.broadcast_to(rows_N, scores_QN.shape)
    rows = jnp.concatenate([best[1], rows_N], axis=1)
    top_QO, where_QO = jax.lax.top_k(scores, number)
    return (top_QO, jnp.take_along_axis(rows, where_QO, axis=1)), None

  shape = (len(queries_QD), number)
  nothing = jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)
  numbered = jnp.arange(len(blocks)), blocks
  return jax.lax.scan(merge, nothing, numbered)[0]


class Retriever:
  """Find the second texts that match a first text.

  Args:
    predictor: predicts vectors of texts; see TaskSpec.check_searchable.
    variables: the model's variables.
    texts: the texts to search; empty and repeated texts are ignored.

  Raises:
    UsageError: if no text remains.
  """

  def __init__(
    self, predictor: Predictor, variables: PyTree, texts: Iterable[str]
  ):
    self._predictor, self._variables = predictor, variables
    self.texts = list(dict.fromkeys(text for text in texts if text.strip()))
    if not self.texts:
      raise UsageError("there are no texts to search; give at least one.")
    self._index = Index(self._vectors("second", self.texts))

  def __call__(
    self, queries: Sequence[str], number: int = 5
  ) -> list[list[Hit]]:
    """Return the most similar texts of each query, best first.

    Args:
      queries: the query texts.
      number: number of texts per query.

    Raises:
      UsageError: if a query is empty.
    """
    if not all(query.strip() for query in queries):
      raise UsageError("a query is empty; give a text.")
    vectors_QD = self._vectors("first", queries)
    scores_QO, rows_QO = self._index.search(vectors_QD, number)
    return [
      [Hit(self.texts[i], float(s)) for i, s in zip(rows, scores, strict=True)]
      for rows, scores in zip(rows_QO, scores_QO, strict=True)
    ]

  def _vectors(self, role: str, texts: Sequence[str]) -> np.ndarray:
    """Return the vectors of texts in one role, float32 [N, D]."""
    rows = ((f"text {i}", {role: text}) for i, text in enumerate(texts, 1))
    answers = self._predictor(self._variables, rows)
    return np.stack([match.vectors[role] for _, match in answers])
