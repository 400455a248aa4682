# SPDX-License-Identifier: Apache-2.0
"""A recurrent layer over time, with a hand-written gradient.

On the way back the scan makes the slopes of the gates alone; the gradients of
both kernels are one matmul each over all steps after it, where autodiff would
add up a kernel at every step.

Features stand before the batch, [D, B]: the small matmul of a step then has the
large kernel on its left, every product of the way back is free of transposes,
and gates are split along a leading axis. On a CPU that is a third faster.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.bits import as_bits, from_bits, transposed
from lmjax.ops.cells import Cell, State
from lmjax.ops.matmul import product, wide
from lmjax.ops.rows import on_own_rows
from lmjax.types import Array


class Kernels(NamedTuple):
  """Parameters of one layer; gates are blocks of D columns.

  Attributes:
    input_EZ: [E, gates · D].
    recurrent_DZ: [D, gates · D].
    bias_Z: added to the projected input.
    recurrent_bias_Z: added to the recurrent product, which differs from
      `bias_Z` in a GRU's candidate alone; None for none.
  """

  input_EZ: Array
  recurrent_DZ: Array
  bias_Z: Array
  recurrent_bias_Z: Array | None = None


class _Pace(NamedTuple):
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
  turned: bool = False,
) -> tuple[Array, State]:
  """Run a cell over time.

  Args:
    cell: what happens in a step.
    x_BTE: inputs, in the dtype that the matmuls are to run in; they accumulate
      in float32, and state and gates are float32.
    kernels: the parameters.
    state: arrays [B, D] before the first step, the hidden vector first.
    resets_BT: true where the state is emptied before the step, as at the first
      token of a document; None where it never is.
    mask_BT: true where there is a token; elsewhere the state stays, and is
      what comes out. None where all are there.
    turned: whether the kernels are given as their transposes, which saves their
      copies where few steps are made, as in decoding.

  Returns:
    hidden_BTD in the dtype of the inputs, and the state after the last step.
  """
  rows = (x_BTE, state, resets_BT, mask_BT)
  run = functools.partial(_scan_rows, cell, turned)
  return on_own_rows(run, rows, kernels)


def _scan_rows(cell, turned, rows, kernels) -> tuple[Array, State]:
  x_BTE, state, resets_BT, mask_BT = rows
  dtype = wide(x_BTE.dtype)

  def by_time(flags_BT: Array | None) -> Array | None:
    if flags_BT is None:
      return None
    return flags_BT.astype(bool).T[:, None].astype(dtype)

  resets = by_time(resets_BT)
  pace = _Pace(None if resets is None else 1.0 - resets, by_time(mask_BT))
  x_ETB = jnp.transpose(x_BTE, (2, 1, 0))
  state = tuple(leaf.T.astype(dtype) for leaf in state)
  if turned:
    (hidden_TDB, state), _ = _run(cell, x_ETB, kernels, state, pace, turned)
  else:
    hidden_TDB, state = _layer(cell, x_ETB, kernels, state, pace)
  hidden_BTD = jnp.transpose(hidden_TDB, (2, 0, 1))
  return hidden_BTD, tuple(leaf.T for leaf in state)


def _scaled(state: State, factor: Array | None) -> State:
  return state if factor is None else tuple(x * factor for x in state)


def _run(cell, x_ETB, kernels, state, pace, turned=False):
  dtype, (inputs, time, batch) = x_ETB.dtype, x_ETB.shape
  by_input, by_recurrent = (kernel.astype(dtype) for kernel in kernels[:2])
  as_given = turned or time == 1  # a copy for one step would cost more
  if not as_given:
    by_input, by_recurrent = transposed(by_input), transposed(by_recurrent)
  axes = (0, 0) if as_given and not turned else (1, 0)
  gates_DB = (cell.num_gates, -1, batch)
  bias = kernels.bias_Z.reshape(cell.num_gates, -1, 1)
  # Inputs do not depend on the step before. A GPU wants one large matmul of all
  # of them; a CPU would pay more for copying its output into the loop's layout.
  at_once = jax.default_backend() != "cpu"

  def step(state, inputs):
    x, (keep, move) = inputs
    if at_once:
      projected = x
    else:
      x_EB = from_bits(x, dtype)
      projected = product(by_input, x_EB, axes).reshape(gates_DB)
    state = _scaled(state, keep)
    recurrent_ZB = product(by_recurrent, state[0].astype(dtype), axes)
    if kernels.recurrent_bias_Z is not None:
      recurrent_ZB += kernels.recurrent_bias_Z[:, None]
    recurrent = recurrent_ZB.reshape(gates_DB)
    after, saved = cell.step(projected + bias, recurrent, state)
    if move is not None:
      after = tuple(
        move * new + (1.0 - move) * old
        for new, old in zip(after, state, strict=True)
      )
    return after, (as_bits(after[0].astype(dtype)), saved)

  if at_once:
    projected_ZN = product(by_input, x_ETB.reshape(inputs, -1), axes)
    projected = projected_ZN.reshape(cell.num_gates, -1, time, batch)
    xs = jnp.transpose(projected, (2, 0, 1, 3))
  else:
    xs = as_bits(jnp.swapaxes(x_ETB, 0, 1))
  last, (bits, saved) = jax.lax.scan(step, state, (xs, pace))
  return (from_bits(bits, dtype), last), (bits, saved)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(cell, x_ETB, kernels, state, pace):
  return _run(cell, x_ETB, kernels, state, pace)[0]


def _fwd(cell, x_ETB, kernels, state, pace):
  out, (bits_TDB, saved) = _run(cell, x_ETB, kernels, state, pace)
  return out, (x_ETB, kernels, state[0], bits_TDB, saved, pace)


def _bwd(cell, residuals, cotangents):
  x_ETB, kernels, first_DB, bits_TDB, saved, pace = residuals
  dhidden_TDB, dlast = cotangents
  dtype, state_dtype = x_ETB.dtype, first_DB.dtype
  width, (_, time, batch) = len(kernels.recurrent_DZ), x_ETB.shape
  kernel_DZ = kernels.recurrent_DZ.astype(dtype)

  def to_recurrent(dprojected, saved):
    if cell.recurrent_slopes is None:
      return dprojected
    return cell.recurrent_slopes(dprojected, saved).astype(dtype)

  def step(dstate, inputs):
    dhidden, saved, (keep, move) = inputs
    dhidden = from_bits(dhidden, dtype).astype(state_dtype)
    dstate = (dstate[0] + dhidden, *dstate[1:])
    stays = None
    if move is not None:
      stays = _scaled(dstate, 1.0 - move)
      dstate = _scaled(dstate, move)
    dprojected, direct = cell.gradient(dstate, saved)
    dprojected = dprojected.astype(dtype)
    slopes_ZB = to_recurrent(dprojected, saved).reshape(-1, batch)
    dh = product(kernel_DZ, slopes_ZB)
    dstate = (direct[0] + dh, *direct[1:])
    if stays is not None:
      dstate = tuple(a + b for a, b in zip(dstate, stays, strict=True))
    return _scaled(dstate, keep), as_bits(dprojected)

  steps = (as_bits(dhidden_TDB), saved, pace)
  dstate, bits = jax.lax.scan(step, dlast, steps, reverse=True)

  def by_column(bits, rows):
    """[T, ..., B] with `rows` features to [features, T · B]."""
    bits = jnp.swapaxes(bits.reshape(time, rows, batch), 0, 1)
    return from_bits(bits.reshape(rows, -1), dtype)

  num_columns = cell.num_gates * width
  dprojected_ZN = slopes_ZN = by_column(bits, num_columns)
  if cell.recurrent_slopes is not None:
    slopes = jax.vmap(to_recurrent)(from_bits(bits, dtype), saved)
    slopes_ZN = by_column(as_bits(slopes), num_columns)
  before = jnp.concatenate(
    [as_bits(first_DB.astype(dtype))[None], bits_TDB[:-1]]
  )
  if pace.keep is not None:  # what a reset emptied is empty here too
    before = jnp.where(pace.keep > 0, before, 0)
  h_DN = by_column(before, width)
  x_EN = x_ETB.reshape(len(x_ETB), -1)
  dx_EN = product(kernels.input_EZ.astype(dtype), dprojected_ZN)
  gradients = Kernels(
    input_EZ=product(x_EN, dprojected_ZN, (1, 1)),
    recurrent_DZ=product(h_DN, slopes_ZN, (1, 1)),
    bias_Z=jnp.sum(dprojected_ZN, axis=1, dtype=state_dtype),
    recurrent_bias_Z=None
    if kernels.recurrent_bias_Z is None
    else jnp.sum(slopes_ZN, axis=1, dtype=state_dtype),
  )
  cast = jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, kernels)
  return dx_EN.reshape(x_ETB.shape).astype(dtype), cast, dstate, None


_layer.defvjp(_fwd, _bwd)
