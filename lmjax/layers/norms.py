# SPDX-License-Identifier: Apache-2.0
"""Normalisations by name; both compute their statistics in float32."""

import functools

import flax.linen as nn

NORMS = {
  "layer": nn.LayerNorm,  # Ba et al. 2016, arXiv:1607.06450
  "layer_no_bias": functools.partial(nn.LayerNorm, use_bias=False),
  "rms": nn.RMSNorm,  # Zhang & Sennrich 2019, arXiv:1910.07467
}

# Each head [..., H, K] by itself, without a bias.
head_norm = functools.partial(
  nn.LayerNorm, use_bias=False, reduction_axes=-1, feature_axes=(-2, -1)
)
