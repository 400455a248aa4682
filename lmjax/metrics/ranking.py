# SPDX-License-Identifier: Apache-2.0
"""How early what is right is found among candidates.

Dimension letters:

    Q  queries
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

CUTOFFS = (1, 5, 10)
_BLOCK = 1024


class Question(NamedTuple):
  """What is asked of which candidates.

  Attributes:
    queries: the texts that are asked.
    candidates: the texts that may be found.
    right_QN: whether each candidate is right for each query.
  """

  queries: list[str]
  candidates: list[str]
  right_QN: np.ndarray


def make_question(
  pairs: Iterable[tuple[str, str]], num_candidates: int
) -> Question:
  """Choose candidates, and the queries that one of them is right for.

  The same texts are chosen in whatever order the pairs come.

  Args:
    pairs: queries and what is right for them; a query may come with several.
    num_candidates: how many different candidates there are at most, chosen by
      a hash; 0 for all.
  """
  pairs = set(pairs)
  candidates = sorted({correct for _, correct in pairs}, key=_hash)
  candidates = sorted(candidates[: num_candidates or None])
  column = {text: index for index, text in enumerate(candidates)}
  queries = sorted({query for query, correct in pairs if correct in column})
  row = {text: index for index, text in enumerate(queries)}
  right_QN = np.zeros((len(queries), len(candidates)), bool)
  for query, correct in pairs:
    if correct in column:
      right_QN[row[query], column[correct]] = True
  return Question(queries, candidates, right_QN)


def _hash(text: str) -> bytes:
  return hashlib.blake2b(text.encode(), digest_size=8).digest()


def ranks(
  queries_QD: np.ndarray, candidates_ND: np.ndarray, right_QN: np.ndarray
) -> np.ndarray:
  """Return the place of the best right candidate by dot product, int64 [Q].

  From 1 on. Of equal ones, those that are wrong come first.
  """
  places = []
  for start in range(0, len(queries_QD), _BLOCK):
    part = slice(start, start + _BLOCK)
    scores_QN = queries_QD[part] @ candidates_ND.T
    correct = right_QN[part]
    best_Q1 = np.where(correct, scores_QN, -np.inf).max(axis=1, keepdims=True)
    places.append(1 + np.sum(~correct & (scores_QN >= best_Q1), axis=1))
  return np.concatenate(places)


def figures(ranks_Q: Sequence[int]) -> dict[str, float]:
  """Turn ranks into recall at each of CUTOFFS, and the mean reciprocal rank.

  Recall is the share of queries for which something right is among the first.
  """
  ranks_Q = np.asarray(ranks_Q)
  recalls = {f"recall@{k}": float(np.mean(ranks_Q <= k)) for k in CUTOFFS}
  return dict(recalls, mrr=float(np.mean(1 / ranks_Q)))
