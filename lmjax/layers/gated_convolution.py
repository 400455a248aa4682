# SPDX-License-Identifier: Apache-2.0
"""Gated convolutions (Dauphin et al. 2017, arXiv:1612.08083)."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.layers.convolution import (
  Convolution,
  Past,
  empty_past,
  normalized_kernel,
)
from lmjax.layers.stateful import State, StatefulLayer
from lmjax.types import Array, PyTree


class GatedConvolution(StatefulLayer):
  """One convolution times the sigmoid of another, alone or in a bottleneck.

  In a bottleneck the convolution over time has few features, between two of
  size 1 that are gated too.

  Attributes:
    width: width D of what goes out.
    size: how many inputs the convolution over time sees.
    bottleneck_width: number of features between; 0 for no bottleneck.
    weight_norm: whether the length of the kernels' columns is a parameter.
    out_scale: standard deviation of the outputs at initialization, relative to
      that of the inputs.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  width: int
  size: int
  bottleneck_width: int
  weight_norm: bool
  out_scale: float
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTD: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Convolve [B, T, E] to [B, T, width]; the state is the past inputs."""

    def gated(
      name: str, x: Array, features: int, size: int, past: Past, scale: float
    ) -> tuple[Array, Past]:
      y_BTF, past = Convolution(
        2 * features,
        size,
        self.weight_norm,
        init_scale=2.0 * scale,  # a sigmoid halves what it gates
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=name,
      )(x, past, resets_BT)
      linear, gate = jnp.split(y_BTF, 2, axis=-1)
      return linear * jax.nn.sigmoid(gate), past

    inner, size = self.bottleneck_width, self.size
    if not inner:
      return gated("conv", x_BTD, self.width, size, state, self.out_scale)
    x, _ = gated("down", x_BTD, inner, 1, (), 1.0)
    x, past = gated("conv", x, inner, size, state, 1.0)
    y, _ = gated("up", x, self.width, 1, (), self.out_scale)
    return y, past

  @nn.nowrap
  def initial_state(self, batch_size: int, inputs: int) -> State:
    """Make an empty state."""
    return empty_past(batch_size, self.size, self.bottleneck_width or inputs)

  @nn.nowrap
  def for_decoding(
    self, params: PyTree, batch_size: int
  ) -> tuple[functools.partial, PyTree]:
    """Normalise the kernels once, not at every token."""
    if not self.weight_norm:
      return super().for_decoding(params, batch_size)
    plain = dataclasses.replace(self, weight_norm=False)
    folded = {
      name: dict(kernel=normalized_kernel(**conv), bias=conv["bias"])
      for name, conv in params.items()
    }
    return plain.for_decoding(folded, batch_size)

  @nn.nowrap
  def flops_per_token(self, inputs: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""
    inner = self.bottleneck_width
    if not inner:
      return 4 * self.size * inputs * self.width
    return 4 * inner * (inputs + self.size * inner + self.width)
