# SPDX-License-Identifier: Apache-2.0
"""From counts to back-off models.

All methods return the same tables. If a method interpolates, the probability of
an observed n-gram includes that of the shorter ones, so that one backoff rule
evaluates all of them.

The vocabulary is closed: any token can be next, except the `excluded` ones such
as `<pad>` and `<bos>`. Those get no probability of unseen tokens, and order 1
does not count them; they are still contexts. C(h) is
how often a context h is followed by a token, which it is not where its document
ends.
"""

from collections.abc import Callable, Sequence

import numpy as np

from lmjax.ngrams.backoff import Backoff
from lmjax.ngrams.counting import Counts


def maximum_likelihood(
  orders: Sequence[Counts], excluded: Sequence[int] = ()
) -> list[Backoff]:
  """Divide counts: c(h w) / C(h).

  A context that was never seen gives way to a shorter one. In one that was, a
  token that never followed it has probability zero.
  """
  probs, weights = [], []
  for level, counts in zip(orders, _raw(orders, excluded), strict=True):
    totals = level.grams.sums(counts)
    probs.append(counts / np.maximum(level.grams.of_parents(totals), 1))
    weights.append(np.where(totals > 0, 0.0, 1.0))
  return _tables(orders, probs, weights)


def add_k(
  orders: Sequence[Counts], k: float, excluded: Sequence[int] = ()
) -> list[Backoff]:
  """Add k to every count of the highest order: (c(h w) + k) / (C(h) + k V).

  V leaves out the excluded. The lower orders are uniform, which is what the
  formula gives for a context that was never seen.
  """
  uniform = _uniform(orders, excluded)
  probs = [uniform[level.grams.words] for level in orders]
  weights = [np.ones(len(level.grams.starts) - 1) for level in orders]
  added = k * np.count_nonzero(uniform)
  grams, counts = orders[-1].grams, _raw(orders, excluded)[-1]
  totals = grams.sums(counts) + added
  probs[-1] = (counts + added * probs[-1]) / grams.of_parents(totals)
  weights[-1] = added / totals
  return _tables(orders, probs, weights)


def stupid_backoff(
  orders: Sequence[Counts], factor: float, excluded: Sequence[int] = ()
) -> list[Backoff]:
  """Divide counts and discount nothing (Brants et al. 2007).

  A token that never followed a context has `factor` times its score in the
  shorter one, and a token that never occurred `factor` / V. In the paper the
  scores of a context do not sum to one; here they are divided by their sum,
  which makes them probabilities and leaves their ratios as they are.
  """
  probs, weights = [], []
  for level, counts in zip(orders, _raw(orders, excluded), strict=True):
    totals = level.grams.sums(counts)
    probs.append(counts / np.maximum(level.grams.of_parents(totals), 1))
    weights.append(np.where(totals > 0, factor, 1.0))
  unseen = factor * _uniform(orders, excluded)
  probs[0] = np.where(probs[0] > 0, probs[0], unseen)
  return _tables(orders, *_normalize(orders, probs, weights))


def kneser_ney(
  orders: Sequence[Counts], excluded: Sequence[int] = ()
) -> list[Backoff]:
  """Smooth by interpolated Kneser–Ney, with one discount an order.

  See Kneser & Ney (1995), and Chen & Goodman (1999) for the interpolation.
  """
  return _interpolate(orders, excluded, kneser_ney_discounts)


def modified_kneser_ney(
  orders: Sequence[Counts], excluded: Sequence[int] = ()
) -> list[Backoff]:
  """Smooth by modified Kneser–Ney (Chen & Goodman 1999), interpolated."""
  return _interpolate(orders, excluded, modified_kneser_ney_discounts)


def kneser_ney_discounts(counts: np.ndarray) -> np.ndarray:
  """Return what to take from counts of 0, 1, 2, and 3 or more, float64 [4].

  That is n1 / (n1 + 2 n2), where n_c grams have count c. In a text so small, or
  of tokens so few, that n1 is zero, it is 0.75.
  """
  once, twice = _counts_of_counts(counts)[1:3]
  discount = once / (once + 2 * twice) if once else 0.75
  return np.array([0.0, discount, discount, discount])


def modified_kneser_ney_discounts(counts: np.ndarray) -> np.ndarray:
  """Return what to take from counts of 0, 1, 2, and 3 or more, float64 [4].

  From counts c = 1, 2 and 3 that is c - (c + 1) Y n_{c+1} / n_c, where n_c
  grams have count c and Y = n1 / (n1 + 2 n2). In a text so small, or of tokens
  so few, that n1, n2 or n3 is zero or a discount lies outside of 0 to c, the
  three are 0.5, 1 and 1.5, as KenLM falls back to (Heafield et al. 2013).
  """
  numbers = _counts_of_counts(counts)
  c = np.arange(4)
  if numbers[1:4].all():
    y = numbers[1] / (numbers[1] + 2 * numbers[2])
    discounts = c - (c + 1) * y * np.append(0, numbers[2:] / numbers[1:4])
    if ((discounts > 0) & (discounts <= c))[1:].all():
      return discounts
  return c / 2


def _interpolate(
  orders: Sequence[Counts],
  excluded: Sequence[int],
  discounts_of: Callable[[np.ndarray], np.ndarray],
) -> list[Backoff]:
  """Discount each order and spread what that frees as the order below has it.

  Below order 1 is the uniform distribution.
  """
  probs, weights = [], []
  lower = _uniform(orders, excluded)
  for level, counts in zip(orders, _adjusted(orders, excluded), strict=True):
    grams, discounts = level.grams, discounts_of(counts)
    kinds = np.minimum(counts, 3)
    totals = grams.sums(counts)
    freed = sum(discounts[c] * grams.sums(kinds == c) for c in (1, 2, 3))
    weights.append(np.where(totals > 0, freed / np.maximum(totals, 1), 1.0))
    kept = (counts - discounts[kinds]) / grams.of_parents(np.maximum(totals, 1))
    shorter = probs[-1][grams.suffixes] if probs else lower
    probs.append(kept + grams.of_parents(weights[-1]) * shorter)
  return _tables(orders, probs, weights)


def _raw(orders: Sequence[Counts], excluded: Sequence[int]) -> list[np.ndarray]:
  """Return how often the grams of each order occur."""
  return _without([level.counts for level in orders], excluded)


def _adjusted(
  orders: Sequence[Counts], excluded: Sequence[int]
) -> list[np.ndarray]:
  """Return the counts that Kneser–Ney smoothing starts from.

  Below the highest order this is the number of different tokens that precede an
  n-gram. At the start of a document nothing precedes it, and every occurrence
  counts; so n-grams that start with `<bos>` keep their raw counts, as in KenLM
  and SRILM.
  """
  counts = [
    np.bincount(longer.grams.suffixes, minlength=len(level.grams))
    + level.openings
    for level, longer in zip(orders, orders[1:], strict=False)
  ]
  return _without([*counts, orders[-1].counts], excluded)


def _without(
  counts: list[np.ndarray], excluded: Sequence[int]
) -> list[np.ndarray]:
  """Set the counts of the excluded in order 1 to zero."""
  first = counts[0].copy()
  first[list(excluded)] = 0
  return [first, *counts[1:]]


def _counts_of_counts(counts: np.ndarray) -> np.ndarray:
  """Return how many grams have count 0, 1, 2, 3 and 4, int64 [5]."""
  return np.bincount(np.minimum(counts, 5), minlength=6)[:5]


def _uniform(orders: Sequence[Counts], excluded: Sequence[int]) -> np.ndarray:
  """Return the uniform distribution over all tokens but the excluded, [V]."""
  allowed = np.ones(len(orders[0].grams))
  allowed[list(excluded)] = 0.0
  return allowed / allowed.sum()


def _normalize(
  orders: Sequence[Counts],
  scores: Sequence[np.ndarray],
  weights: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Divide the scores after each context by their sum.

  That is the sum over its own grams, and its weight times what the shorter
  context has for all other tokens.

  Returns:
    The probabilities, and the weights that go with them.
  """
  probs, new_weights, sums = [], [], []
  for k, (level, own, weight) in enumerate(
    zip(orders, scores, weights, strict=True)
  ):
    parents = level.grams.of_parents(np.arange(len(weight)))
    total = np.bincount(parents, own, len(weight))
    if k:
      shorter = sums[-1][orders[k - 1].grams.suffixes]
      backed_off = scores[k - 1][level.grams.suffixes]
      rest = shorter - np.bincount(parents, backed_off, len(weight))
      total = total + weight * rest
      weight = weight * shorter / total
    probs.append(own / total[parents])
    new_weights.append(weight)
    sums.append(total)
  return probs, new_weights


def _tables(
  orders: Sequence[Counts],
  probs: Sequence[np.ndarray],
  weights: Sequence[np.ndarray],
) -> list[Backoff]:
  """Take logarithms.

  Args:
    orders: the grams.
    probs: of each gram.
    weights: of each parent; those of order k - 1 come with order k.
  """
  weights = [*weights[1:], np.ones(len(orders[-1].grams))]
  with np.errstate(divide="ignore"):
    return [
      Backoff(level.grams, np.log(p), np.log(w))
      for level, p, w in zip(orders, probs, weights, strict=True)
    ]
