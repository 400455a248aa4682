# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers: parameters around the recurrences of lmjax.ops."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.ops.cells import CELLS, State
from lmjax.ops.cudnn_lstm import cudnn_layer
from lmjax.ops.recurrence import Kernels, scan_layer
from lmjax.types import Array, PyTree

IMPLEMENTATIONS = ("auto", "scan", "cudnn")


def choose_implementation(
  implementation: str, cell: str, dtype: jnp.dtype, with_resets: bool
) -> str:
  """Say how a layer is to run: "scan" or "cudnn".

  cuDNN takes float32 LSTMs on an NVIDIA GPU whose state is never emptied
  within a window; the scan takes everything everywhere. Of several GPUs each
  would compute the whole batch, for a mesh cannot divide cuDNN's call.

  Args:
    implementation: what was asked for; "auto" to choose.
    cell: name of the cell.
    dtype: dtype of the matmuls.
    with_resets: whether states are emptied, or steps left out, on the way.
  """
  if implementation != "auto":
    return implementation
  fits = cell == "lstm" and dtype == jnp.float32 and not with_resets
  one_gpu = jax.default_backend() == "gpu" and jax.device_count() == 1
  return "cudnn" if fits and one_gpu else "scan"


def _uniform(key: Array, shape: tuple[int, int], dtype: jnp.dtype) -> Array:
  """Draw from ±1/√D, as PyTorch does.

  Orthogonal blocks would need QR decompositions, several of which in one
  program can wait for each other without end in XLA's CPU backend.
  """
  limit = shape[0] ** -0.5
  return jax.random.uniform(key, shape, dtype, -limit, limit)


class RecurrentLayer(nn.Module):
  """One layer of a recurrent network.

  Attributes:
    cell: "lstm", "gru" or "rnn".
    width: width D of the state.
    implementation: "scan", "cudnn" or "auto"; all have the same parameters.
    turned: whether kernels are given as their transposes, for decoding.
    dtype: dtype of the matmuls; the state is float32.
    param_dtype: dtype of the parameters.
  """

  cell: str
  width: int
  implementation: str = "auto"
  turned: bool = False
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x_BTE: Array,
    state: State,
    resets_BT: Array | None = None,
    mask_BT: Array | None = None,
  ) -> tuple[Array, State]:
    """Run over time from `state`; see lmjax.ops.recurrence.scan_layer.

    Returns:
      hidden_BTD in `dtype`, and the state after the last step in float32.
    """
    cell = CELLS[self.cell]
    columns = cell.num_gates * self.width

    def kernel(
      name: str, init: nn.initializers.Initializer, inputs: int
    ) -> Array:
      shape = (columns, inputs) if self.turned else (inputs, columns)
      return self.param(name, init, shape, self.param_dtype)

    def bias(key: Array, shape: tuple[int], dtype: jnp.dtype) -> Array:
      """Open an LSTM's forget gates at first (Jozefowicz et al. 2015)."""
      del key
      zeros = jnp.zeros(shape, dtype)
      if self.cell != "lstm":
        return zeros
      return zeros.at[self.width : 2 * self.width].set(1.0)

    kernels = Kernels(
      kernel("input_kernel", nn.initializers.glorot_uniform(), x_BTE.shape[-1]),
      kernel("recurrent_kernel", _uniform, self.width),
      self.param("bias", bias, (columns,), self.param_dtype),
    )
    if self.cell == "gru":  # elsewhere it would do what `bias` does
      kernels = kernels._replace(
        recurrent_bias_Z=self.param(
          "recurrent_bias", nn.initializers.zeros, (columns,), self.param_dtype
        )
      )
    irregular = resets_BT is not None or mask_BT is not None
    chosen = choose_implementation(
      self.implementation, self.cell, self.dtype, irregular
    )
    if chosen == "cudnn" and irregular:
      raise ValueError("cuDNN neither empties states nor leaves out steps")
    x_BTE = x_BTE.astype(self.dtype)
    decodes = self.turned or x_BTE.shape[1] == 1
    if chosen == "cudnn" and not decodes:
      return cudnn_layer(x_BTE, kernels, state)
    return scan_layer(
      cell, x_BTE, kernels, state, resets_BT, mask_BT, self.turned
    )

  @nn.nowrap
  def initial_state(self, batch_size: int, inputs: int) -> State:
    """Make an empty state."""
    del inputs
    return tuple(
      jnp.zeros((batch_size, self.width), jnp.float32)
      for _ in range(CELLS[self.cell].num_states)
    )

  @nn.nowrap
  def for_decoding(
    self, params: PyTree, batch_size: int
  ) -> tuple[functools.partial, PyTree]:
    """Turn the kernels once, not at every token; one row needs no turning."""
    turned = batch_size > 1
    make = functools.partial(
      RecurrentLayer, self.cell, self.width, self.implementation, turned
    )
    if not turned:
      return make, params
    return make, {k: v.T if v.ndim == 2 else v for k, v in params.items()}

  @nn.nowrap
  def choices(self, with_resets: bool) -> dict[str, str]:
    """Name what "auto" stands for here."""
    chosen = choose_implementation(
      self.implementation, self.cell, self.dtype, with_resets
    )
    return dict(implementation=chosen)

  @nn.nowrap
  def flops_per_token(self, inputs: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""
    columns = CELLS[self.cell].num_gates * self.width
    return 2 * columns * (inputs + self.width)
