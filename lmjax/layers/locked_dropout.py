# SPDX-License-Identifier: Apache-2.0
"""Dropout whose mask stays the same for a whole sequence."""

from lmjax.layers.dropout import Dropout


class LockedDropout(Dropout):
  """Zero the same features at every token of a row.

  Merity et al. 2018 (arXiv:1708.02182); variational dropout of Gal &
  Ghahramani 2016 (arXiv:1512.05287). Each row and each call has its own
  mask, so in stateful training it changes with every batch.

  Attributes:
    rate: fraction of the features of [B, T, D] set to zero; see Dropout.
  """

  shared_axes: tuple[int, ...] = (1,)
