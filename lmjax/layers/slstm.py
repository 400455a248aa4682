# SPDX-License-Identifier: Apache-2.0
"""The sLSTM layer: heads with scalar memories that mix within a head.

Beck et al. 2024 (arXiv:2405.04517), figure 10, without the feed-forward layer
that follows it.

Dimension letters:

    R  the four gates, in the order i, f, z, o
"""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.block_diagonal import BlockDiagonal
from lmjax.layers.convolution import DepthwiseConvolution, empty_past
from lmjax.layers.norms import DEFAULT_EPSILON, head_norm
from lmjax.layers.stateful import State, StatefulLayer
from lmjax.ops.slstm import NUM_GATES, Cells, empty_cells, slstm
from lmjax.types import Array


class SLSTMLayer(StatefulLayer):
  """Exponential gates, block-diagonal kernels, and a norm of each head.

  Attributes:
    width: width D of what comes in and goes out.
    num_heads: number H of heads.
    conv_size: how many inputs a convolution before the input and the forget
      gate sees; 0 for none.
    depth: relative depth of the layer, from 0 for the lowest to 1 for the
      highest; the forget gates of higher layers are more open at first.
    norm_epsilon: added to the variance by the norm of each head.
    dtype: dtype of the matmuls; the state is float32.
    param_dtype: dtype of the parameters.
  """

  width: int
  num_heads: int
  conv_size: int
  depth: float
  norm_epsilon: float = DEFAULT_EPSILON
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTD: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Run over time; the state is that of the cells and the convolution's."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    conv = DepthwiseConvolution(self.conv_size, name="conv", **dtypes)
    near_BTD, past = conv(x_BTD, state[4:], resets_BT)
    if self.conv_size:
      near_BTD = nn.silu(near_BTD)
    gates = [
      BlockDiagonal(
        self.num_heads,
        init_scale=(2 / (5 * self.width)) ** 0.5,  # Nguyen & Salazar 2019
        name=name,
        **dtypes,
      )(x)
      for name, x in (
        ("input", near_BTD),
        ("forget", near_BTD),
        ("candidate", x_BTD),
        ("output", x_BTD),
      )
    ]
    head_width = self.width // self.num_heads

    def gates_bias(key: Array, shape: tuple, dtype: jnp.dtype) -> Array:
      """Let the features of a head forget from hardly to almost at once."""
      del key
      share_K = jnp.linspace(0.0, 1.0, head_width, dtype=dtype)
      forget_K = 5.0 - 12.0 * share_K ** (0.3 + 1.3 * self.depth)
      return jnp.zeros(shape, dtype).at[1].set(forget_K)

    bias_RHK = self.param(
      "gates_bias",
      gates_bias,
      (NUM_GATES, self.num_heads, head_width),
      self.param_dtype,
    )
    kernel_HKZ = self.param(
      "recurrent_kernel",
      nn.initializers.zeros,
      (self.num_heads, head_width, NUM_GATES * head_width),
      self.param_dtype,
    )
    gates_BTRD = jnp.stack(gates, axis=2)
    gates_BTRHK = gates_BTRD.reshape(*x_BTD.shape[:2], *bias_RHK.shape)
    gates_BTRHK += bias_RHK.astype(self.dtype)[None, None]
    hidden_BTHK, cells = slstm(
      gates_BTRHK, kernel_HKZ, Cells(*state[:4]), resets_BT
    )
    norm = head_norm(epsilon=self.norm_epsilon, name="hidden_norm", **dtypes)
    hidden_BTHK = norm(hidden_BTHK)
    return hidden_BTHK.reshape(x_BTD.shape), (*cells, *past)

  @nn.nowrap
  def initial_state(self, batch_size: int, inputs: int) -> State:
    """Make an empty state."""
    head_width = self.width // self.num_heads
    cells = empty_cells(batch_size, self.num_heads, head_width)
    return *cells, *empty_past(batch_size, self.conv_size, inputs)

  @nn.nowrap
  def flops_per_token(self, inputs: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""
    maps = NUM_GATES * (inputs + self.width) // self.num_heads
    return 2 * self.width * maps
