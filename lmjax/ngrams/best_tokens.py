# SPDX-License-Identifier: Apache-2.0
"""The most likely token after every context of a backoff model.

It is the most likely of the extensions of the context, or of all other tokens,
whose order is that of the shorter context. The tables contain the suffix of
every n-gram, so each extension of a context also extends its suffix; the other
tokens extend only the suffix, or neither.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmjax.ngrams.backoff import Backoff
from lmjax.ngrams.grams import Grams


class _Best(NamedTuple):
  """The most likely token of a set, for each of some contexts."""

  scores: np.ndarray
  tokens: np.ndarray


def best_tokens(orders: Sequence[Backoff]) -> list[np.ndarray]:
  """Return the most likely token after every n-gram that is a context.

  Args:
    orders: the model. Its logarithms are added up from the shortest context on,
      in their own dtype, so that what is found is the best of scores that are
      made in the same way.

  Returns:
    The tokens for each order but the highest, int32 [N]; of equally likely ones
    the first.
  """
  found, ranked = [], _by_probability(orders[0])
  # The best token that does not extend an n-gram; all extend the empty one.
  nothing = np.full(1, -np.inf, orders[0].log_probs.dtype)
  other = _Best(nothing, np.zeros(1, np.int64))
  for level, longer in zip(orders, orders[1:], strict=False):
    starts, suffixes = level.grams.starts, level.grams.suffixes
    place = starts[suffixes] + _num_taken(level.grams, longer.grams, ranked)
    other = _better(
      _pick(level, ranked, place, starts[suffixes + 1]),
      _Best(other.scores[suffixes], other.tokens[suffixes]),
    )
    other = other._replace(scores=other.scores + level.log_weights)
    ranked, starts = _by_probability(longer), longer.grams.starts
    seen = _pick(longer, ranked, starts[:-1], starts[1:])
    found.append(_better(seen, other).tokens.astype(np.int32))
  return found


def _by_probability(level: Backoff) -> np.ndarray:
  """Sort the children of each gram, the most likely first."""
  ranked, numbers = np.arange(len(level.grams)), np.diff(level.grams.starts)
  siblings = np.flatnonzero(level.grams.of_parents(numbers > 1))
  parents = level.grams.of_parents(np.arange(len(numbers)))[siblings]
  order = np.lexsort((-level.log_probs[siblings], parents))
  ranked[siblings] = siblings[order]
  return ranked


def _num_taken(grams: Grams, longer: Grams, ranked: np.ndarray) -> np.ndarray:
  """Count how many of the best tokens after its suffix extend an n-gram too.

  Args:
    grams: the grams of order k.
    longer: the grams of order k + 1.
    ranked: the order that `_by_probability` gives to those of order k.

  Returns:
    The number of them before the first that does not, [N of order k].
  """
  ranks = np.empty(len(grams), np.int64)
  ranks[ranked] = np.arange(len(grams))
  ranks -= grams.of_parents(grams.starts[:-1])
  own = np.arange(len(grams)) << 32
  found = np.sort(longer.of_parents(own) | ranks[longer.suffixes]) & 0xFFFFFFFF
  expected = np.arange(len(longer)) - longer.of_parents(longer.starts[:-1])
  return longer.sums(found == expected)


def _pick(
  level: Backoff, ranked: np.ndarray, places: np.ndarray, ends: np.ndarray
) -> _Best:
  """Return the grams at places of `ranked`; none for a place at an end."""
  there = places < ends
  grams = ranked[places[there]]
  scores = np.full(len(places), -np.inf, level.log_probs.dtype)
  tokens = np.zeros(len(places), np.int64)
  scores[there] = level.log_probs[grams]
  tokens[there] = level.grams.words[grams]
  return _Best(scores, tokens)


def _better(one: _Best, other: _Best) -> _Best:
  """Choose by score, and between equals the first token."""
  chosen = one.scores > other.scores
  chosen |= (one.scores == other.scores) & (one.tokens < other.tokens)
  pairs = zip(one, other, strict=True)
  return _Best(*(np.where(chosen, a, b) for a, b in pairs))
