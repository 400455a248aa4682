# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers: parameters around the scans of lmjax.ops."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.ops.lstm import LSTMState, lstm
from lmjax.types import Array


def _forget_bias(key: Array, shape: tuple[int], dtype: jnp.dtype) -> Array:
  """Open the forget gates at first (Jozefowicz et al. 2015)."""
  del key
  bias = jnp.zeros(shape, dtype)
  width = shape[0] // 4
  return bias.at[width : 2 * width].set(1.0)


def _orthogonal_gates(
  key: Array, shape: tuple[int, int], dtype: jnp.dtype
) -> Array:
  """Make the four [D, D] blocks of a recurrent kernel orthogonal."""
  width = shape[0]
  blocks = jax.vmap(
    lambda key: nn.initializers.orthogonal()(key, (width, width), jnp.float32)
  )(jax.random.split(key, 4))
  return jnp.concatenate(list(blocks), axis=1).astype(dtype)


class LSTMLayer(nn.Module):
  """One LSTM layer; the input of all steps is projected in one matmul.

  Attributes:
    width: width D of the state.
    dtype: dtype of the matmuls; the state is float32.
    param_dtype: dtype of the parameters.
  """

  width: int
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTE: Array, state: LSTMState, resets_BT: Array | None = None
  ) -> tuple[Array, LSTMState]:
    """Run over time from `state`; see lmjax.ops.lstm.

    Returns:
      hidden_BTD in `dtype`, and the state after the last step in float32.
    """
    input_kernel = self.param(
      "input_kernel",
      nn.initializers.glorot_uniform(),
      (x_BTE.shape[-1], 4 * self.width),
      self.param_dtype,
    )
    recurrent_kernel = self.param(
      "recurrent_kernel",
      _orthogonal_gates,
      (self.width, 4 * self.width),
      self.param_dtype,
    )
    bias = self.param("bias", _forget_bias, (4 * self.width,), self.param_dtype)
    projected_BT4D = jnp.matmul(
      x_BTE.astype(self.dtype),
      input_kernel.astype(self.dtype),
      preferred_element_type=jnp.float32,
    )
    hidden_BTD, state = lstm(
      projected_BT4D + bias.astype(jnp.float32),
      recurrent_kernel.astype(self.dtype),
      state,
      resets_BT,
    )
    return hidden_BTD.astype(self.dtype), state
