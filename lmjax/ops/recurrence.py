# SPDX-License-Identifier: Apache-2.0
"""A recurrent layer over time, with a hand-written gradient.

The backward scan computes the gradients of the gates only; the gradients of
both kernels are one matmul each over all steps after it, where autodiff would
add up a kernel at every step.

Features are before the batch, [D, B]: the small matmul of a step then has the
large kernel on its left, no product of the backward pass needs a transpose,
and gates are split along a leading axis. On a CPU that is a third faster.

Dimension letters:

    P  width of the hidden state after its projection
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.bits import as_bits, from_bits, transposed
from lmjax.ops.cells import Cell, State
from lmjax.ops.layout import on_own_rows
from lmjax.ops.matmul import product, wide
from lmjax.types import Array


class Kernels(NamedTuple):
  """Parameters of one layer; gates are blocks of D columns.

  Attributes:
    input_EZ: [E, gates · D]; None if the inputs are already projected, that is,
      multiplied by this kernel with `bias_Z` added.
    recurrent_DZ: [D, gates · D]; [P, gates · D] with a projection.
    bias_Z: added to the projected input; None for none.
    recurrent_bias_Z: added to the recurrent product, which differs from
      `bias_Z` in a GRU's candidate alone; None for none.
    projection_DP: makes the hidden vector, P wide, of what the cell puts out
      (Sak et al. 2014, arXiv:1402.1128); None to take it as it is.
    vectors: further parameters of the cell.
  """

  input_EZ: Array | None
  recurrent_DZ: Array
  bias_Z: Array | None
  recurrent_bias_Z: Array | None = None
  projection_DP: Array | None = None
  vectors: tuple[Array, ...] = ()


class _StepMask(NamedTuple):
  """What happens at each step, [T, 1, B] each, or None where nothing does."""

  keep: Array | None  # 0 where the state is emptied before the step
  move: Array | None  # 0 where the step is left out


def scan_layer(
  cell: Cell,
  x_BTE: Array,
  kernels: Kernels,
  state: State,
  resets_BT: Array | None = None,
  mask_BT: Array | None = None,
  is_transposed: bool = False,
) -> tuple[Array, State]:
  """Scan a cell over time.

  Args:
    cell: one step.
    x_BTE: inputs, in the dtype of the matmuls, which accumulate in float32;
      state and gates are float32.
    kernels: the parameters.
    state: arrays [B, D] before the first step, the hidden vector first.
    resets_BT: True where the state is reset before the step, as at the first
      token of a document; None for no resets.
    mask_BT: True at tokens; at padding the state is unchanged and is also the
      output. None if there is no padding.
    is_transposed: whether the kernels are given as their transposes, which
      saves copies of them if there are few steps, as in decoding.

  Returns:
    hidden_BTD in the dtype of the inputs, and the state after the last step.
  """
  rows = (x_BTE, state, resets_BT, mask_BT)
  run = functools.partial(_scan_rows, cell, is_transposed)
  return on_own_rows(run, rows, kernels)


def _scan_rows(cell, is_transposed, rows, kernels) -> tuple[Array, State]:
  x_BTE, state, resets_BT, mask_BT = rows
  dtype = wide(x_BTE.dtype)

  def by_time(flags_BT: Array | None) -> Array | None:
    if flags_BT is None:
      return None
    return flags_BT.astype(bool).T[:, None].astype(dtype)

  resets = by_time(resets_BT)
  step_mask = _StepMask(
    None if resets is None else 1.0 - resets, by_time(mask_BT)
  )
  x_ETB = jnp.transpose(x_BTE, (2, 1, 0))
  state = tuple(leaf.T.astype(dtype) for leaf in state)
  if is_transposed:
    (hidden_TDB, state), _ = _run(
      cell, x_ETB, kernels, state, step_mask, is_transposed
    )
  else:
    hidden_TDB, state = _layer(cell, x_ETB, kernels, state, step_mask)
  hidden_BTD = jnp.transpose(hidden_TDB, (2, 0, 1))
  return hidden_BTD, tuple(leaf.T for leaf in state)


def _scaled(state: State, factor: Array | None) -> State:
  return state if factor is None else tuple(x * factor for x in state)


def _run(cell, x_ETB, kernels, state, step_mask, is_transposed=False):
  dtype, (inputs, time, batch) = x_ETB.dtype, x_ETB.shape
  matrices = _matrices(kernels, dtype)
  as_given = is_transposed or time == 1  # a copy for one step would cost more
  if not as_given:
    matrices = jax.tree.map(transposed, matrices)
  by_input, by_recurrent, by_projection = matrices
  axes = (0, 0) if as_given and not is_transposed else (1, 0)
  gates_DB = (cell.num_gates, -1, batch)
  vectors = _cast(kernels.vectors, wide(dtype))
  # Inputs do not depend on the step before. A GPU wants one large matmul of all
  # of them; a CPU would pay more for copying its output into the loop's layout.
  at_once = by_input is not None and jax.default_backend() != "cpu"

  def project(x):
    if at_once:
      return x
    x_EB = from_bits(x, dtype)
    if by_input is not None:
      x_EB = product(by_input, x_EB, axes)
    return x_EB.reshape(gates_DB)

  def step(state, inputs):
    x, (keep, move) = inputs
    projected = project(x)
    if kernels.bias_Z is not None:
      projected += kernels.bias_Z.reshape(cell.num_gates, -1, 1)
    state = _scaled(state, keep)
    recurrent_ZB = product(by_recurrent, state[0].astype(dtype), axes)
    if kernels.recurrent_bias_Z is not None:
      recurrent_ZB += kernels.recurrent_bias_Z[:, None]
    recurrent = recurrent_ZB.reshape(gates_DB)
    after, saved = cell.step(projected, recurrent, state, vectors)
    unprojected = None
    if by_projection is not None:
      unprojected = after[0].astype(dtype)
      after = (product(by_projection, unprojected, axes), *after[1:])
      unprojected = as_bits(unprojected)
    if move is not None:
      after = tuple(
        move * new + (1.0 - move) * old
        for new, old in zip(after, state, strict=True)
      )
    return after, (as_bits(after[0].astype(dtype)), saved, unprojected)

  if at_once:
    projected_ZN = product(by_input, x_ETB.reshape(inputs, -1), axes)
    projected = projected_ZN.reshape(cell.num_gates, -1, time, batch)
    xs = jnp.transpose(projected, (2, 0, 1, 3))
  else:
    xs = as_bits(jnp.swapaxes(x_ETB, 0, 1))
  last, made = jax.lax.scan(step, state, (xs, step_mask))
  return (from_bits(made[0], dtype), last), made


def _cast(tree, dtype):
  return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _matrices(kernels, dtype):
  """Return input_EZ, recurrent_DZ and projection_DP in a dtype."""
  matrices = (kernels.input_EZ, kernels.recurrent_DZ, kernels.projection_DP)
  return _cast(matrices, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(cell, x_ETB, kernels, state, step_mask):
  return _run(cell, x_ETB, kernels, state, step_mask)[0]


def _fwd(cell, x_ETB, kernels, state, step_mask):
  out, made = _run(cell, x_ETB, kernels, state, step_mask)
  return out, (x_ETB, kernels, state[0], made, step_mask)


def _recurrent_gradients(cell, vectors, dtype, dprojected, saved):
  """Return the gradient of the recurrent product of one step."""
  if cell.recurrent_gradients is None:
    return dprojected
  return cell.recurrent_gradients(dprojected, saved, vectors).astype(dtype)


def _backward_step(cell, matrices, vectors, gradients, inputs):
  """Propagate gradients through one step, from its output to its state."""
  dstate, dvectors = gradients
  dhidden, saved, (keep, move) = inputs
  _, recurrent_DZ, projection_DP = matrices
  dtype, batch = recurrent_DZ.dtype, dstate[0].shape[-1]
  dhidden = from_bits(dhidden, dtype).astype(dstate[0].dtype)
  dstate = (dstate[0] + dhidden, *dstate[1:])
  unmoved = None
  if move is not None:  # at padding the state is passed on unchanged
    unmoved = _scaled(dstate, 1.0 - move)
    dstate = _scaled(dstate, move)
  dmade = None
  if projection_DP is not None:
    dmade = dstate[0].astype(dtype)
    dstate = (product(projection_DP, dmade), *dstate[1:])
    dmade = as_bits(dmade)
  dprojected, direct, more = cell.gradient(dstate, saved, vectors)
  dprojected = dprojected.astype(dtype)
  drecurrent = _recurrent_gradients(cell, vectors, dtype, dprojected, saved)
  dh = product(recurrent_DZ, drecurrent.reshape(-1, batch))
  dstate = (dh if direct[0] is None else direct[0] + dh, *direct[1:])
  if unmoved is not None:
    dstate = tuple(a + b for a, b in zip(dstate, unmoved, strict=True))
  dvectors = jax.tree.map(jnp.add, dvectors, more)
  return (_scaled(dstate, keep), dvectors), (as_bits(dprojected), dmade)


def _bwd(cell, residuals, cotangents):
  x_ETB, kernels, first_DB, made, step_mask = residuals
  bits_TDB, saved, unprojected_TDB = made
  dhidden_TDB, dlast = cotangents
  dtype, state_dtype = x_ETB.dtype, first_DB.dtype
  width, num_columns = kernels.recurrent_DZ.shape
  _, time, batch = x_ETB.shape
  matrices = input_EZ, _, projection_DP = _matrices(kernels, dtype)
  vectors = _cast(kernels.vectors, state_dtype)
  steps = (as_bits(dhidden_TDB), saved, step_mask)
  zeros = jax.tree.map(jnp.zeros_like, vectors)
  (dstate, dvectors), (bits, dmade_TDB) = jax.lax.scan(
    functools.partial(_backward_step, cell, matrices, vectors),
    (dlast, zeros),
    steps,
    reverse=True,
  )

  def by_column(bits, rows):
    """[T, ..., B] with `rows` features to [features, T · B]."""
    bits = jnp.swapaxes(bits.reshape(time, rows, batch), 0, 1)
    return from_bits(bits.reshape(rows, -1), dtype)

  # The gradient of a kernel is one matmul over all steps and rows, N = T · B.
  dprojected_ZN = drecurrent_ZN = by_column(bits, num_columns)
  if cell.recurrent_gradients is not None:
    gradients = jax.vmap(
      functools.partial(_recurrent_gradients, cell, vectors, dtype)
    )(from_bits(bits, dtype), saved)
    drecurrent_ZN = by_column(as_bits(gradients), num_columns)
  before = jnp.concatenate(
    [as_bits(first_DB.astype(dtype))[None], bits_TDB[:-1]]
  )
  if step_mask.keep is not None:  # states before a reset do not contribute
    before = jnp.where(step_mask.keep > 0, before, 0)
  gradients = dict(
    recurrent_DZ=product(by_column(before, width), drecurrent_ZN, (1, 1)),
    vectors=dvectors,
  )
  dx_EN = dprojected_ZN
  if input_EZ is not None:
    x_EN = x_ETB.reshape(len(x_ETB), -1)
    dx_EN = product(input_EZ, dprojected_ZN)
    gradients["input_EZ"] = product(x_EN, dprojected_ZN, (1, 1))
  if kernels.bias_Z is not None:
    gradients["bias_Z"] = jnp.sum(dprojected_ZN, axis=1, dtype=state_dtype)
  if kernels.recurrent_bias_Z is not None:
    dbias_Z = jnp.sum(drecurrent_ZN, axis=1, dtype=state_dtype)
    gradients["recurrent_bias_Z"] = dbias_Z
  if projection_DP is not None:
    inner, outer = projection_DP.shape
    made_DN = by_column(unprojected_TDB, inner)
    dmade_PN = by_column(dmade_TDB, outer)
    gradients["projection_DP"] = product(made_DN, dmade_PN, (1, 1))
  cast = jax.tree.map(
    lambda g, p: g.astype(p.dtype), kernels._replace(**gradients), kernels
  )
  return dx_EN.reshape(x_ETB.shape).astype(dtype), cast, dstate, None


_layer.defvjp(_fwd, _bwd)
