# SPDX-License-Identifier: Apache-2.0
"""Position-wise feed-forward layers by name."""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.dense import Dense
from lmjax.ops.gelu import gelu
from lmjax.types import Array


class GELUFeedForward(nn.Module):
  """Expand, GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415), contract.

  Attributes:
    width: width F between the two layers.
    use_bias: whether the layers have biases.
    init_scale: standard deviation of the first kernel.
    out_scale: standard deviation of the kernel that writes to the residual.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  width: int
  use_bias: bool = False
  init_scale: float = 0.02
  out_scale: float = 0.02
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  def dense(self, features: int, scale: float, name: str) -> Dense:
    """Make one of the layers."""
    return Dense(
      (features,),
      use_bias=self.use_bias,
      init_scale=scale,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name=name,
    )

  def activate(self, x_BTD: Array) -> Array:
    """Map to the inner width: [B, T, D] to [B, T, F]."""
    inner_BTF = self.dense(self.width, self.init_scale, "up")(x_BTD)
    return gelu(inner_BTF)

  @nn.compact
  def __call__(self, x_BTD: Array) -> Array:
    """Transform each position by itself, [B, T, D] to [B, T, D]."""
    inner_BTF = self.activate(x_BTD)
    return self.dense(x_BTD.shape[-1], self.out_scale, "down")(inner_BTF)


class SwiGLUFeedForward(GELUFeedForward):
  """Expand twice, multiply SiLU of one by the other, contract.

  Shazeer 2020 (arXiv:2002.05202).
  """

  def activate(self, x_BTD: Array) -> Array:
    """Map to the inner width: [B, T, D] to [B, T, F]."""
    gate_BTF = self.dense(self.width, self.init_scale, "gate")(x_BTD)
    inner_BTF = self.dense(self.width, self.init_scale, "up")(x_BTD)
    return nn.silu(gate_BTF) * inner_BTF


class GEGLUFeedForward(GELUFeedForward):
  """Expand twice, multiply GELU of one by the other, contract.

  Shazeer 2020 (arXiv:2002.05202).
  """

  def activate(self, x_BTD: Array) -> Array:
    """Map to the inner width: [B, T, D] to [B, T, F]."""
    gate_BTF = self.dense(self.width, self.init_scale, "gate")(x_BTD)
    inner_BTF = self.dense(self.width, self.init_scale, "up")(x_BTD)
    return gelu(gate_BTF) * inner_BTF


FEED_FORWARDS = {
  "gelu": GELUFeedForward,
  "swiglu": SwiGLUFeedForward,
  "geglu": GEGLUFeedForward,
}
