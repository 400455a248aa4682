# SPDX-License-Identifier: Apache-2.0
"""The minimal recurrences minGRU and minLSTM, whose gates see inputs alone.

Feng et al. 2024 (arXiv:2410.01201). This is their log-space form, in which
candidates pass through g so that states stay positive; as g is what makes it
another model, and the recurrence is stable without logarithms, none are taken.

Dimension letters:

    R  width of the recurrent state
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.layers.convolution import DepthwiseConvolution, empty_past
from lmjax.layers.dense import Affine, Dense, apply_affine
from lmjax.layers.stateful import State, StatefulLayer
from lmjax.ops.linear_recurrence import linear_recurrence
from lmjax.types import Array


def positive(x: Array) -> Array:
  """Map numbers to positive ones: x + 1/2 from 0 on, the sigmoid below."""
  return jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x))


def min_gru(gates: list[Array], candidate_BTD: Array) -> tuple[Array, Array]:
  """Return the decay of the state and the increment."""
  update_BTD = jax.nn.sigmoid(gates[0])
  return 1.0 - update_BTD, update_BTD * candidate_BTD


def min_lstm(gates: list[Array], candidate_BTD: Array) -> tuple[Array, Array]:
  """Return the decay of the state and the increment; both gates sum to one.

  By the logarithm of the gates' ratio, for both gates may be closed.
  """
  forget_BTD, input_BTD = map(jax.nn.log_sigmoid, gates)
  odds_BTD = forget_BTD - input_BTD
  return jax.nn.sigmoid(odds_BTD), jax.nn.sigmoid(-odds_BTD) * candidate_BTD


# Name → function that returns decay and increment, and its number of gates.
CELLS = {
  "min_gru": (min_gru, ("update",)),
  "min_lstm": (min_lstm, ("forget", "input")),
}


class MinRNN(StatefulLayer):
  """A minimal recurrence between a short convolution and a projection.

  Attributes:
    cell: "min_gru" or "min_lstm".
    width: width D of what goes out.
    recurrent_width: number R of states.
    conv_size: how many inputs a convolution before the gates sees; 0 for none.
    out_scale: standard deviation of the kernel that writes to the residual.
    dtype: dtype of the matmuls; the recurrence is float32.
    param_dtype: dtype of the parameters.
  """

  cell: str
  width: int
  recurrent_width: int
  conv_size: int
  out_scale: float
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTD: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Run over time; the state is (h, what the convolution looks at)."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    cell, gates = CELLS[self.cell]
    state_BR, *past = state
    x_BTD, past = DepthwiseConvolution(self.conv_size, name="conv", **dtypes)(
      x_BTD, tuple(past), resets_BT
    )
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
      for name in ("candidate", *gates)
    ]
    mapped = apply_affine(x_BTD, maps, 1, self.dtype)
    candidate_BTR, *gates = (x.astype(jnp.float32) for x in mapped)
    kept_BTR, added_BTR = cell(gates, positive(candidate_BTR))
    hidden_BTR, state_BR = linear_recurrence(
      kept_BTR, added_BTR, state_BR, resets_BT
    )
    out = Dense((self.width,), init_scale=self.out_scale, name="out", **dtypes)
    return out(hidden_BTR), (state_BR, *past)

  @nn.nowrap
  def initial_state(self, batch_size: int, inputs: int) -> State:
    """Make an empty state."""
    hidden_BR = jnp.zeros((batch_size, self.recurrent_width), jnp.float32)
    return hidden_BR, *empty_past(batch_size, self.conv_size, inputs)

  @nn.nowrap
  def flops_per_token(self, inputs: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""
    num_maps = 1 + len(CELLS[self.cell][1])
    return 2 * self.recurrent_width * (num_maps * inputs + self.width)
