# SPDX-License-Identifier: Apache-2.0
"""Vectors in the plane.

Dimension letters:

    M  dimensions of a vector
    P  axes of the plane
"""

from collections.abc import Sequence

import numpy as np

from lmjax.errors import UsageError


def choose(
  names: Sequence[str],
  vectors_VD: np.ndarray,
  number: int,
  wanted: Sequence[str] = (),
  excluded: Sequence[str] = (),
) -> tuple[list[str], np.ndarray]:
  """Choose the vectors of some words.

  Args:
    names: of all tokens, as they come in a vocabulary: the frequent ones first.
    vectors_VD: a vector each.
    number: how many to take, where none are wanted in particular.
    wanted: words.
    excluded: names that are not chosen unless wanted: special tokens.

  Raises:
    UsageError: naming a word that is not there.
  """
  index = {name: place for place, name in enumerate(names)}
  words = list(wanted) or [n for n in names if n not in excluded][:number]
  for word in words:
    if word not in index:
      raise UsageError(
        f"{word!r} is not among the {len(names):,} tokens; try others."
      )
  return words, vectors_VD[[index[word] for word in words]]


def principal_components(
  vectors_ND: np.ndarray, number: int = 2
) -> tuple[np.ndarray, np.ndarray]:
  """Project vectors to where they differ most (Pearson 1901).

  Args:
    vectors_ND: at least as many, and as wide, as `number`.
    number: how many directions P.

  Returns:
    Coordinates around the mean, [N, P], the direction of most variance first;
    and the fraction of the variance along each direction, [P]. Signs are such
    that the largest coordinate of each direction is positive.
  """
  centred_ND = np.asarray(vectors_ND, np.float64)
  centred_ND = centred_ND - centred_ND.mean(axis=0)
  left_NM, sizes_M, _ = np.linalg.svd(centred_ND, full_matrices=False)
  points_NP = left_NM[:, :number] * sizes_M[:number]
  farthest_P = np.abs(points_NP).argmax(axis=0)
  signs_P = np.sign(points_NP[farthest_P, np.arange(points_NP.shape[1])])
  shares_M = sizes_M**2 / max(float(np.sum(sizes_M**2)), 1e-30)
  return points_NP * np.where(signs_P < 0, -1.0, 1.0), shares_M[:number]
