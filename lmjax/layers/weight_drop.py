# SPDX-License-Identifier: Apache-2.0
"""Dropout on the weights of a recurrence instead of its activations."""

from lmjax.layers.dropout import Dropout


class WeightDrop(Dropout):
  """Zero a fraction of a kernel's weights, one mask for all rows and steps.

  DropConnect (Wan et al. 2013) on hidden-to-hidden kernels (Merity et al. 2018,
  arXiv:1708.02182): the recurrence runs as without it, with another kernel.

  Attributes:
    rate: fraction of the weights set to zero; see Dropout.
  """
