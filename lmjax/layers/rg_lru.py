# SPDX-License-Identifier: Apache-2.0
"""The real-gated linear recurrent unit and the block around it.

De et al. 2024 (Hawk and Griffin, arXiv:2402.19427).

Dimension letters:

    R  width of the recurrent state
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.layers.block_diagonal import BlockDiagonal
from lmjax.layers.convolution import DepthwiseConvolution, empty_past
from lmjax.layers.dense import Affine, Dense, apply_affine
from lmjax.layers.stateful import State, StatefulLayer
from lmjax.ops.gelu import gelu
from lmjax.ops.linear_recurrence import linear_recurrence
from lmjax.types import Array

_SHARPNESS = 8.0  # c: how far a gate reaches into the decay
_SHORTEST, _LONGEST = 0.9, 0.999  # decays at first, to the power 1 / c
_LEAST_SHARE = 2.5e-7  # below it the root would be too steep


def _decay_scale(key: Array, shape: tuple[int], dtype: jnp.dtype) -> Array:
  """Sample decays uniformly from a ring of eigenvalues (Orvieto et al. 2023).

  That is arXiv:2303.06349; what is returned passes through a softplus.
  """
  squares = jax.random.uniform(key, shape, dtype, _SHORTEST**2, _LONGEST**2)
  return jnp.log(jnp.expm1(-0.5 * jnp.log(squares)))


class RGLRU(nn.Module):
  """h[t] = a[t] · h[t-1] + √(1 - a[t]²) · i[t] · x[t], feature by feature.

  The gates i and r, and with r the decay a, depend on inputs alone. The root
  keeps the variance of the state; at the first token of a document, which
  nothing comes before, there is none.

  Attributes:
    num_heads: number of blocks that the maps to the gates have.
    dtype: dtype of the matmuls; the recurrence is float32.
    param_dtype: dtype of the parameters.
  """

  num_heads: int
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTR: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Run over time; the state is (h, 1 where a token was seen, else 0)."""
    state_BR, seen_B1 = state
    width = x_BTR.shape[-1]

    def gate(name: str) -> Array:
      y_BTR = BlockDiagonal(
        self.num_heads,
        init_scale=(width // self.num_heads) ** -0.5,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=name,
      )(x_BTR)
      bias_R = self.param(
        f"{name}_bias", nn.initializers.zeros, (width,), self.param_dtype
      )
      return jax.nn.sigmoid(y_BTR.astype(jnp.float32) + bias_R[None, None])

    input_BTR, decay_BTR = gate("input_gate"), gate("decay_gate")
    scale_R = self.param(
      "decay_scale", _decay_scale, (width,), self.param_dtype
    ).astype(jnp.float32)
    decay_BTR = jnp.exp(
      -_SHARPNESS * jax.nn.softplus(scale_R)[None, None] * decay_BTR
    )
    share_BTR = jnp.maximum(1.0 - decay_BTR * decay_BTR, _LEAST_SHARE)
    first_BT = (seen_B1 == 0) & (jnp.arange(x_BTR.shape[1]) == 0)[None]
    if resets_BT is not None:
      first_BT |= resets_BT.astype(bool)
    root_BTR = jnp.where(first_BT[..., None], 1.0, jnp.sqrt(share_BTR))
    hidden_BTR, state_BR = linear_recurrence(
      decay_BTR, root_BTR * input_BTR * x_BTR, state_BR, resets_BT
    )
    return hidden_BTR.astype(self.dtype), (state_BR, jnp.ones_like(seen_B1))


class RecurrentBlock(StatefulLayer):
  """A convolution and an RG-LRU, times a GELU branch, projected.

  Attributes:
    width: width D of what goes out.
    recurrent_width: number R of states.
    num_heads: number of blocks in the maps to the gates.
    conv_size: how many inputs the convolution sees; 0 for none.
    out_scale: standard deviation of the kernel that writes to the residual.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  width: int
  recurrent_width: int
  num_heads: int
  conv_size: int
  out_scale: float
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTD: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Run over time; the state is that of the RG-LRU and the convolution's."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    inputs = x_BTD.shape[-1:]
    maps = [
      Affine(
        inputs,
        (self.recurrent_width,),
        use_bias=True,
        init_scale=inputs[0] ** -0.5,
        param_dtype=self.param_dtype,
        name=name,
      )()
      for name in ("recurrent_branch", "gelu_branch")
    ]
    x_BTR, gate_BTR = apply_affine(x_BTD, maps, 1, self.dtype)
    conv = DepthwiseConvolution(self.conv_size, name="conv", **dtypes)
    x_BTR, past = conv(x_BTR, state[2:], resets_BT)
    recurrence = RGLRU(self.num_heads, name="rg_lru", **dtypes)
    hidden_BTR, memory = recurrence(x_BTR, state[:2], resets_BT)
    y_BTD = Dense(
      (self.width,),
      use_bias=True,
      init_scale=self.out_scale,
      name="out",
      **dtypes,
    )(hidden_BTR * gelu(gate_BTR))
    return y_BTD, (*memory, *past)

  @nn.nowrap
  def initial_state(self, batch_size: int, inputs: int) -> State:
    """Make an empty state."""
    del inputs
    hidden_BR = jnp.zeros((batch_size, self.recurrent_width), jnp.float32)
    past = empty_past(batch_size, self.conv_size, self.recurrent_width)
    return hidden_BR, jnp.zeros((batch_size, 1), jnp.float32), *past

  @nn.nowrap
  def flops_per_token(self, inputs: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""
    gates = 2 * self.recurrent_width // self.num_heads
    return 2 * self.recurrent_width * (2 * inputs + gates + self.width)
