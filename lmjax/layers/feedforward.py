# SPDX-License-Identifier: Apache-2.0
"""Position-wise feed-forward layers by name."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.dense import Dense
from lmjax.ops.gelu import gelu
from lmjax.types import Array


class Kind(NamedTuple):
  """The activation of a feed-forward layer.

  Attributes:
    activate: applied to the first layer, or to a second one beside it.
    gated: whether there is a second one, which the first is multiplied by.
  """

  activate: Callable[[Array], Array]
  gated: bool = False


FEED_FORWARDS = {
  "sigmoid": Kind(nn.sigmoid),
  "tanh": Kind(jnp.tanh),
  "relu": Kind(nn.relu),
  "gelu": Kind(gelu),  # by tanh; Hendrycks & Gimpel 2016, arXiv:1606.08415
  "gelu_exact": Kind(functools.partial(nn.gelu, approximate=False)),
  "silu": Kind(nn.silu),
  # Dauphin et al. 2016 (arXiv:1612.08083), Shazeer 2020 (arXiv:2002.05202)
  "glu": Kind(nn.sigmoid, gated=True),
  "reglu": Kind(nn.relu, gated=True),
  "geglu": Kind(gelu, gated=True),
  "swiglu": Kind(nn.silu, gated=True),
  "bilinear": Kind(lambda x: x, gated=True),
}


class FeedForward(nn.Module):
  """Position-wise feed-forward layer: down(activation(up(x))).

  Attributes:
    kind: one of FEED_FORWARDS.
    width: width F between the two layers.
    use_bias: whether the layers have biases.
    init_scale: standard deviation of the first kernels.
    out_scale: standard deviation of the kernel that writes to the residual.
    initializer: initializer of the kernels; all but "normal" ignore the scales.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  kind: str
  width: int
  use_bias: bool = False
  init_scale: float = 0.02
  out_scale: float = 0.02
  initializer: str = "normal"
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x_BTD: Array) -> Array:
    """Transform each position independently, [B, T, D] to [B, T, D]."""

    def dense(x: Array, features: int, scale: float, name: str) -> Array:
      return Dense(
        (features,),
        use_bias=self.use_bias,
        init_scale=scale,
        initializer=self.initializer,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=name,
      )(x)

    kind = FEED_FORWARDS[self.kind]
    if kind.gated:
      gate_BTF = dense(x_BTD, self.width, self.init_scale, "gate")
      up_BTF = dense(x_BTD, self.width, self.init_scale, "up")
      inner_BTF = kind.activate(gate_BTF) * up_BTF
    else:
      up_BTF = dense(x_BTD, self.width, self.init_scale, "up")
      inner_BTF = kind.activate(up_BTF)
    return dense(inner_BTF, x_BTD.shape[-1], self.out_scale, "down")
