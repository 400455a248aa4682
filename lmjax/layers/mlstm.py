# SPDX-License-Identifier: Apache-2.0
"""The mLSTM layer: a matrix memory between an up- and a down-projection.

Beck et al. 2024 (arXiv:2405.04517), figure 11.
"""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.block_diagonal import BlockDiagonal
from lmjax.layers.convolution import DepthwiseConvolution, empty_past
from lmjax.layers.dense import Affine, Dense, apply_affine
from lmjax.layers.norms import DEFAULT_EPSILON, head_norm
from lmjax.layers.stateful import State, StatefulLayer
from lmjax.ops.mlstm import Memory, empty_memory, mlstm
from lmjax.types import Array


def _gate_bias(key: Array, shape: tuple[int], dtype: jnp.dtype) -> Array:
  """Return random biases of input gates, and 3 to 6 for forget gates."""
  heads = shape[0] // 2
  input_H = nn.initializers.normal(0.1)(key, (heads,), dtype)
  return jnp.concatenate([input_H, jnp.linspace(3.0, 6.0, heads, dtype=dtype)])


class MLSTMLayer(StatefulLayer):
  """Heads with a matrix memory each, times a SiLU branch.

  Attributes:
    width: width D of what goes out.
    inner_width: width I of all heads together.
    num_heads: number H of heads.
    block_width: width of the blocks of the maps to queries, keys and values.
    conv_size: how many inputs a convolution before queries and keys sees; 0
      for none.
    out_scale: standard deviation of the kernel that writes to the residual.
    norm_epsilon: added to the variance by the norm of each head.
    dtype: dtype of the matmuls; the memory is float32.
    param_dtype: dtype of the parameters.
  """

  width: int
  inner_width: int
  num_heads: int
  block_width: int
  conv_size: int
  out_scale: float
  norm_epsilon: float = DEFAULT_EPSILON
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTD: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Run over time; the state is the memory and that of the convolution."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    inputs, inner = x_BTD.shape[-1], self.inner_width
    scale = (2 / (5 * inputs)) ** 0.5  # Nguyen & Salazar 2019
    maps = [
      Affine(
        (inputs,),
        (inner,),
        init_scale=scale,
        param_dtype=self.param_dtype,
        name=name,
      )()
      for name in ("up", "silu_branch")
    ]
    x_BTI, branch_BTI = apply_affine(x_BTD, maps, 1, self.dtype)
    conv = DepthwiseConvolution(self.conv_size, name="conv", **dtypes)
    near_BTI, past = conv(x_BTI, state[3:], resets_BT)
    near_BTI = nn.silu(near_BTI)

    qkv = [
      BlockDiagonal(
        inner // self.block_width, init_scale=scale, name=name, **dtypes
      )(x)
      for name, x in (("query", near_BTI), ("key", near_BTI), ("value", x_BTI))
    ]
    kernels_3IZ = self.param(
      "gates_kernel",
      nn.initializers.zeros,
      (3, inner, 2 * self.num_heads),
      self.param_dtype,
    )
    bias_Z = self.param(
      "gates_bias", _gate_bias, (2 * self.num_heads,), self.param_dtype
    )
    gates_BTZ = bias_Z.astype(jnp.float32)[None, None]
    for x, kernel_IZ in zip(qkv, kernels_3IZ, strict=True):
      (part_BTZ,) = apply_affine(x, [(kernel_IZ, None)], 1, self.dtype)
      gates_BTZ = gates_BTZ + part_BTZ.astype(jnp.float32)

    heads = (*x_BTD.shape[:2], self.num_heads, -1)
    read_BTHK, memory = mlstm(
      *(x.reshape(heads) for x in qkv),
      *jnp.split(gates_BTZ, 2, axis=-1),
      Memory(*state[:3]),
      resets_BT,
    )
    norm = head_norm(epsilon=self.norm_epsilon, name="read_norm", **dtypes)
    read_BTHK = norm(read_BTHK)
    skip_I = self.param(
      "skip_scale", nn.initializers.ones, (inner,), self.param_dtype
    )
    hidden_BTI = read_BTHK.reshape(near_BTI.shape)
    hidden_BTI += skip_I.astype(self.dtype)[None, None] * near_BTI
    out = Dense((self.width,), init_scale=self.out_scale, name="out", **dtypes)
    return out(hidden_BTI * nn.silu(branch_BTI)), (*memory, *past)

  @nn.nowrap
  def initial_state(self, batch_size: int, inputs: int) -> State:
    """Make an empty state."""
    del inputs
    head_width = self.inner_width // self.num_heads
    memory = empty_memory(batch_size, self.num_heads, head_width)
    return *memory, *empty_past(batch_size, self.conv_size, self.inner_width)

  @nn.nowrap
  def flops_per_token(self, inputs: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token.

    Those of the memory are counted as step by step: a product to write into
    each head's matrix, and one to read it.
    """
    maps = 2 * inputs + 3 * (self.block_width + 2 * self.num_heads) + self.width
    memory = 2 * self.inner_width // self.num_heads
    return 2 * self.inner_width * (maps + memory)
