# SPDX-License-Identifier: Apache-2.0
"""Dropout whose mask stays the same for a whole sequence."""

from lmjax.layers.dropout import Dropout


class LockedDropout(Dropout):
  """Zero the same features at every token of a row.

  Merity et al. 2018 (arXiv:1708.02182); variational dropout of Gal &
  Ghahramani 2016 (arXiv:1512.05287). Each row and each call has a mask of its
  own, so with memory kept from batch to batch it changes with the window.

  Attributes:
    rate: share of the features of [B, T, D] set to zero; see Dropout.
  """

  shared_axes: tuple[int, ...] = (1,)
