# SPDX-License-Identifier: Apache-2.0
"""The recurrence of the sLSTM, with a hand-written gradient.

Beck et al. 2024 (arXiv:2405.04517). Heads with recurrent kernels of their own,
and gates that are exponentials:

    c[t] = σ(f̃) c[t-1] + exp(ĩ) tanh(z̃)     n[t] = σ(f̃) n[t-1] + exp(ĩ)
    h[t] = σ(õ) c[t] / n[t]

where h[t-1] acts on ĩ, f̃, z̃ and õ. Both c and n are stored multiplied by
exp(-m), with the logarithm m of the largest term of n. The output does
not depend on m, and no gradient flows through it.

Features are before the batch, for the reasons given in recurrence.py.

Dimension letters:

    R  the four gates, in the order i, f, z, o
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmjax.ops.layout import on_own_rows
from lmjax.ops.matmul import wide
from lmjax.types import Array

NUM_GATES = 4  # input, forget, candidate, output
NOTHING = -1e30  # the logarithm of a term that is not there


class Cells(NamedTuple):
  """The state of all heads; each is [B, H, K], or [H, K, B] in here.

  Attributes:
    hidden: h.
    values: c, in multiples of exp(scale).
    weights: n, likewise.
    scale: m; NOTHING if nothing was seen.
  """

  hidden: Array
  values: Array
  weights: Array
  scale: Array


def empty_cells(batch_size: int, heads: int, width: int) -> Cells:
  """Make the state before the first token."""
  zeros = jnp.zeros((batch_size, heads, width), jnp.float32)
  return Cells(zeros, zeros, zeros, jnp.full_like(zeros, NOTHING))


def slstm(
  gates_BTRHK: Array,
  kernel_HKZ: Array,
  cells: Cells,
  resets_BT: Array | None = None,
) -> tuple[Array, Cells]:
  """Run over time.

  Args:
    gates_BTRHK: what inputs and biases make of ĩ, f̃, z̃ and õ, in the dtype
      that the matmuls are to run in; the state is float32.
    kernel_HKZ: [H, K, 4 · K], what the hidden vector of a head adds to them.
    cells: the state before the first step.
    resets_BT: true where the state is emptied before the step.

  Returns:
    Hidden vectors, [B, T, H, K] in the dtype of the gates, and the last state.
  """
  rows = (gates_BTRHK, cells, resets_BT)
  return on_own_rows(_run_rows, rows, kernel_HKZ)


def _run_rows(rows, kernel_HKZ):
  gates_BTRHK, cells, resets_BT = rows
  batch, time = gates_BTRHK.shape[:2]
  dtype = wide(gates_BTRHK.dtype)
  if resets_BT is None:
    resets_BT = jnp.zeros((batch, time), bool)
  keep_T1B = 1.0 - resets_BT.T[:, None].astype(dtype)
  gates_TRHKB = jnp.transpose(gates_BTRHK, (1, 2, 3, 4, 0))
  cells = Cells(*(jnp.moveaxis(x.astype(dtype), 0, -1) for x in cells))
  hidden_THKB, cells = _recurrence(gates_TRHKB, kernel_HKZ, cells, keep_T1B)
  hidden_BTHK = jnp.transpose(hidden_THKB, (3, 0, 1, 2))
  return hidden_BTHK, Cells(*(jnp.moveaxis(x, -1, 0) for x in cells))


def _emptied(cells: Cells, keep: Array) -> Cells:
  hidden, values, weights, scale = cells
  scale = jnp.where(keep > 0, scale, NOTHING)
  keep = keep[None]  # the same for all heads
  return Cells(keep * hidden, keep * values, keep * weights, scale)


def _product(kernel: Array, x: Array, contracted: int) -> Array:
  """Multiply each head's [K, Z], or its transpose, by [., B]."""
  dims = (((contracted,), (1,)), ((0,), (0,)))
  return jax.lax.dot_general(
    kernel, x, dims, preferred_element_type=wide(x.dtype)
  )


def _run(gates_TRHKB, kernel_HKZ, cells, keep_T1B):
  dtype = gates_TRHKB.dtype
  kernel_HKZ = kernel_HKZ.astype(dtype)
  _, heads, width, batch = gates_TRHKB.shape[1:]

  def step(cells, xs):
    gates_RHKB, keep = xs
    cells = _emptied(cells, keep)
    recurrent_HZB = _product(kernel_HKZ, cells.hidden.astype(dtype), 1)
    recurrent = recurrent_HZB.reshape(heads, NUM_GATES, width, batch)
    i, f, z, o = jnp.swapaxes(recurrent, 0, 1) + gates_RHKB
    log_f = jax.nn.log_sigmoid(f) + cells.scale
    scale = jnp.maximum(log_f, i)
    i, kept, z = jnp.exp(i - scale), jnp.exp(log_f - scale), jnp.tanh(z)
    o, forgotten = jax.nn.sigmoid(o), jax.nn.sigmoid(-f)
    values = kept * cells.values + i * z
    weights = kept * cells.weights + i
    hidden = o * values / weights
    saved = (i, kept, z, o, forgotten, cells.values, cells.weights)
    return Cells(hidden, values, weights, scale), (hidden.astype(dtype), saved)

  cells, (hidden, saved) = jax.lax.scan(step, cells, (gates_TRHKB, keep_T1B))
  return (hidden, cells), saved


@jax.custom_vjp
def _recurrence(gates_TRHKB, kernel_HKZ, cells, keep_T1B):
  return _run(gates_TRHKB, kernel_HKZ, cells, keep_T1B)[0]


def _fwd(gates_TRHKB, kernel_HKZ, cells, keep_T1B):
  out, saved = _run(gates_TRHKB, kernel_HKZ, cells, keep_T1B)
  return out, (kernel_HKZ, cells.hidden, out[0], saved, keep_T1B)


def _bwd(residuals, cotangents):
  kernel_HKZ, first_HKB, hidden_THKB, saved, keep_T1B = residuals
  dhidden_THKB, dcells = cotangents
  dtype = hidden_THKB.dtype
  kernel = kernel_HKZ.astype(dtype)
  heads, width, batch = first_HKB.shape

  def step(dcells, xs):
    dh, (i, kept, z, o, forgotten, c, n), keep = xs
    keep = keep[None]  # the same for all heads
    dh += dcells.hidden
    values, weights = kept * c + i * z, kept * n + i
    ratio = values / weights
    dvalues = dcells.values + dh * o / weights
    dweights = dcells.weights - dh * o * ratio / weights
    gradients = (
      (dvalues * z + dweights) * i,
      (dvalues * c + dweights * n) * kept * forgotten,
      dvalues * i * (1.0 - z * z),
      dh * ratio * o * (1.0 - o),
    )
    slopes_HRKB = jnp.stack(gradients, axis=1).astype(dtype)
    slopes_HZB = slopes_HRKB.reshape(heads, -1, batch)
    dcells = Cells(
      keep * _product(kernel, slopes_HZB, 2),
      keep * dvalues * kept,
      keep * dweights * kept,
      dcells.scale,
    )
    return dcells, slopes_HZB

  dcells = dcells._replace(scale=jnp.zeros_like(dcells.scale))
  xs = (dhidden_THKB, saved, keep_T1B)
  dcells, slopes_THZB = jax.lax.scan(step, dcells, xs, reverse=True)
  before_THKB = jnp.concatenate([first_HKB.astype(dtype)[None], hidden_THKB])
  before_THKB = before_THKB[:-1] * keep_T1B[:, None].astype(dtype)
  dkernel_HKZ = jnp.einsum(
    "thkb,thzb->hkz",
    before_THKB,
    slopes_THZB,
    preferred_element_type=wide(dtype),
  )
  dgates = slopes_THZB.reshape(-1, heads, NUM_GATES, width, batch)
  dkernel_HKZ = dkernel_HKZ.astype(kernel_HKZ.dtype)
  return jnp.swapaxes(dgates, 1, 2), dkernel_HKZ, dcells, None


_recurrence.defvjp(_fwd, _bwd)
