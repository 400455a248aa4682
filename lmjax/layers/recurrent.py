# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers: parameters around the recurrences of lmjax.ops.

Dimension letters:

    P  width of the hidden state after its projection
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.layers.initializers import INITIALIZERS, by_gate
from lmjax.layers.weight_drop import WeightDrop
from lmjax.ops.bits import transposed
from lmjax.ops.cells import CELLS, NORM_EPSILON, State
from lmjax.ops.cudnn_lstm import cudnn_layer
from lmjax.ops.matmul import matmul, product
from lmjax.ops.recurrence import Kernels, scan_layer
from lmjax.types import Array, PyTree

IMPLEMENTATIONS = ("auto", "scan", "cudnn")
INIT_SCALE = 0.02  # standard deviation of initializer="normal"


class RecurrentLayer(nn.Module):
  """One layer of a recurrent network.

  Attributes:
    cell: one of CELLS.
    width: width of the hidden vector, which is what goes out.
    implementation: "scan", "cudnn" or "auto"; all have the same parameters.
    is_transposed: whether kernels are given as their transposes, for decoding.
    cell_width: width D of the cell where a projection makes the hidden vector
      of it (Sak et al. 2014, arXiv:1402.1128); 0 for `width` and none.
    weight_drop: fraction of the recurrent kernel that is dropped; see
      WeightDrop.
    initializer: initializer of the input kernel, one of INITIALIZERS.
    recurrent_initializer: initializer of the recurrent kernel, applied gate by
      gate, and of the projection.
    norm_epsilon: added to the variances by the cell "layer_norm_lstm".
    dtype: dtype of the matmuls; the state is float32.
    param_dtype: dtype of the parameters.
  """

  cell: str
  width: int
  implementation: str = "auto"
  is_transposed: bool = False
  cell_width: int = 0
  weight_drop: float = 0.0
  initializer: str = "glorot_uniform"
  recurrent_initializer: str = "uniform"
  norm_epsilon: float = NORM_EPSILON
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
      hidden [B, T, width] in `dtype`, and the state after the last step in
      float32.
    """
    x_BTE = x_BTE.astype(self.dtype)
    kernels = self._kernels(x_BTE.shape[-1])
    if self.cell == "layer_norm_lstm":
      x_BTE, kernels = self._normalize_inputs(x_BTE, kernels)
    irregular = resets_BT is not None or mask_BT is not None
    chosen = self._choose_implementation(irregular)
    if chosen == "cudnn" and irregular:
      raise ValueError("cuDNN neither empties states nor leaves out steps")
    decodes = self.is_transposed or x_BTE.shape[1] == 1
    if chosen == "cudnn" and not decodes:
      return cudnn_layer(x_BTE, kernels, state)
    cell = CELLS[self.cell]
    if self.cell == "layer_norm_lstm":
      cell = dataclasses.replace(cell, epsilon=self.norm_epsilon)
    return scan_layer(
      cell, x_BTE, kernels, state, resets_BT, mask_BT, self.is_transposed
    )

  def _kernels(self, inputs: int) -> Kernels:
    """Make the parameters."""
    width = self.cell_width or self.width
    columns = CELLS[self.cell].num_gates * width

    def kernel(
      name: str, init: nn.initializers.Initializer, shape: tuple[int, int]
    ) -> Array:
      shape = shape[::-1] if self.is_transposed else shape
      return self.param(name, init, shape, self.param_dtype)

    def vector(
      name: str, size: int, init: nn.initializers.Initializer
    ) -> Array:
      return self.param(name, init, (size,), self.param_dtype)

    def bias(key: Array, shape: tuple[int], dtype: jnp.dtype) -> Array:
      """Open an LSTM's forget gates at first (Jozefowicz et al. 2015)."""
      del key
      zeros = jnp.zeros(shape, dtype)
      return zeros.at[width : 2 * width].set(1.0) if self._is_lstm else zeros

    init = INITIALIZERS[self.initializer](INIT_SCALE)
    recurrent_init = INITIALIZERS[self.recurrent_initializer](INIT_SCALE)
    gates_init = recurrent_init
    if self.recurrent_initializer == "orthogonal":
      gates_init = by_gate(recurrent_init, CELLS[self.cell].num_gates)
    recurrent = kernel("recurrent_kernel", gates_init, (self.width, columns))
    kernels = Kernels(
      kernel("input_kernel", init, (inputs, columns)),
      WeightDrop(self.weight_drop)(recurrent),
      vector("bias", columns, bias),
    )
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    if self.cell == "gru":  # elsewhere it would do what `bias` does
      added = dict(recurrent_bias_Z=vector("recurrent_bias", columns, zeros))
      kernels = kernels._replace(**added)
    if self.cell_width:
      shape = (width, self.width)
      projection = kernel("projection_kernel", recurrent_init, shape)
      kernels = kernels._replace(projection_DP=projection)
    if self.cell == "layer_norm_lstm":
      vectors = (
        vector("recurrent_scale", columns, ones),
        vector("cell_scale", width, ones),
        vector("cell_bias", width, zeros),
      )
      kernels = kernels._replace(vectors=vectors)
    return kernels

  def _normalize_inputs(
    self, x_BTE: Array, kernels: Kernels
  ) -> tuple[Array, Kernels]:
    """Project inputs and normalize what comes out, over all gates together."""
    batch, time, inputs = x_BTE.shape
    x_NE, kernel = x_BTE.reshape(-1, inputs), kernels.input_EZ
    if self.is_transposed:
      projected_NZ = product(x_NE, kernel.astype(self.dtype), (1, 1))
    else:
      projected_NZ = matmul(x_NE, (kernel.astype(self.dtype),))[0]
    norm = nn.LayerNorm(
      epsilon=self.norm_epsilon,
      use_bias=False,
      param_dtype=self.param_dtype,
      name="input_norm",
    )
    projected_NZ = norm(projected_NZ) + kernels.bias_Z[None]
    projected_BTZ = projected_NZ.reshape(batch, time, -1).astype(self.dtype)
    return projected_BTZ, kernels._replace(input_EZ=None, bias_Z=None)

  @property
  def _is_lstm(self) -> bool:
    return self.cell in ("lstm", "layer_norm_lstm")

  @nn.nowrap
  def _choose_implementation(self, with_resets: bool) -> str:
    """Say how it is to run: "scan" or "cudnn".

    cuDNN takes plain float32 LSTMs on an NVIDIA GPU whose state is never
    emptied within a window; the scan takes everything everywhere. Of several
    GPUs each would compute the whole batch, for a mesh cannot divide cuDNN's
    call.

    Args:
      with_resets: whether states are emptied, or steps left out, on the way.
    """
    if self.implementation != "auto":
      return self.implementation
    plain = self.cell == "lstm" and not self.cell_width
    fits = plain and self.dtype == jnp.float32 and not with_resets
    one_gpu = jax.default_backend() == "gpu" and jax.device_count() == 1
    return "cudnn" if fits and one_gpu else "scan"

  @nn.nowrap
  def initial_state(self, batch_size: int, inputs: int) -> State:
    """Make an empty state."""
    del inputs
    widths = (self.width, self.cell_width or self.width)
    return tuple(
      jnp.zeros((batch_size, width), jnp.float32)
      for width in widths[: CELLS[self.cell].num_states]
    )

  @nn.nowrap
  def for_decoding(
    self, params: PyTree, batch_size: int
  ) -> tuple[functools.partial, PyTree]:
    """Turn the kernels once, not at every token; one row needs no turning."""
    is_transposed = batch_size > 1
    make = functools.partial(
      RecurrentLayer,
      self.cell,
      self.width,
      self.implementation,
      is_transposed,
      cell_width=self.cell_width,
      norm_epsilon=self.norm_epsilon,
    )
    if not is_transposed:
      return make, params

    def turn(leaf: Array) -> Array:
      return transposed(leaf.astype(self.dtype)) if leaf.ndim == 2 else leaf

    return make, jax.tree.map(turn, params)

  @nn.nowrap
  def resolve_auto(self, with_resets: bool) -> dict[str, str]:
    """Return what "auto" resolves to, by config key."""
    return dict(implementation=self._choose_implementation(with_resets))

  @nn.nowrap
  def flops_per_token(self, inputs: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""
    columns = CELLS[self.cell].num_gates * (self.cell_width or self.width)
    projection = self.cell_width * self.width
    return 2 * (columns * (inputs + self.width) + projection)
