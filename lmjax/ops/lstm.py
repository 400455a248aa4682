# SPDX-License-Identifier: Apache-2.0
"""The LSTM recurrence with a hand-written gradient.

Only `h @ recurrent_kernel` depends on the step before, so the caller projects
all inputs at once and hands the result in. On the way back the scan makes the
gate gradients alone; the gradient of the recurrent kernel is one matmul over
all steps after it, where autodiff would add a [D, 4D] array at every step.
"""

import jax
import jax.numpy as jnp

from lmjax.types import Array

LSTMState = tuple[Array, Array]  # (h_BD, c_BD), both float32


def lstm(
  projected_BT4D: Array,
  recurrent_kernel: Array,
  state: LSTMState,
  resets_BT: Array | None = None,
) -> tuple[Array, LSTMState]:
  """Run an LSTM over time (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

  Args:
    projected_BT4D: inputs times input kernel plus bias; the four blocks of the
      last axis are the input gate, the forget gate, the cell candidate and the
      output gate.
    recurrent_kernel: [D, 4D] in the dtype that the matmuls are to run in; they
      accumulate in float32.
    state: (h_BD, c_BD) before the first step.
    resets_BT: true where the state is to be emptied before the step, as at the
      first token of a document; None where it never is.

  Returns:
    hidden_BTD in float32, and the state after the last step.
  """
  projected_TB4D = jnp.swapaxes(projected_BT4D, 0, 1).astype(jnp.float32)
  keep_TB1 = None
  if resets_BT is not None:
    keep_TB1 = (
      1.0 - jnp.swapaxes(resets_BT, 0, 1).astype(jnp.float32)[..., None]
    )
  h_BD, c_BD = (leaf.astype(jnp.float32) for leaf in state)
  hidden_TBD, state = _recurrence(
    projected_TB4D, recurrent_kernel, h_BD, c_BD, keep_TB1
  )
  return jnp.swapaxes(hidden_TBD, 0, 1), state


def _matmul(x: Array, kernel: Array) -> Array:
  return jnp.matmul(
    x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32
  )


def _gates(preactivation_B4D: Array) -> tuple[Array, Array, Array, Array]:
  i, f, g, o = jnp.split(preactivation_B4D, 4, axis=-1)
  return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _forward(projected_TB4D, recurrent_kernel, h_BD, c_BD, keep_TB1):
  def step(state, inputs):
    h, c = state
    projected, keep = inputs
    if keep is not None:
      h, c = h * keep, c * keep
    i, f, g, o = _gates(projected + _matmul(h, recurrent_kernel))
    new_c = f * c + i * g
    new_h = o * jnp.tanh(new_c)
    return (new_h, new_c), (new_h, new_c, jnp.concatenate([i, f, g, o], -1))

  return jax.lax.scan(step, (h_BD, c_BD), (projected_TB4D, keep_TB1))


@jax.custom_vjp
def _recurrence(projected_TB4D, recurrent_kernel, h_BD, c_BD, keep_TB1):
  state, (h_TBD, _, _) = _forward(
    projected_TB4D, recurrent_kernel, h_BD, c_BD, keep_TB1
  )
  return h_TBD, state


def _recurrence_fwd(projected_TB4D, recurrent_kernel, h_BD, c_BD, keep_TB1):
  state, (h_TBD, c_TBD, gates_TB4D) = _forward(
    projected_TB4D, recurrent_kernel, h_BD, c_BD, keep_TB1
  )
  # States before each step; what a reset emptied is emptied here too.
  h_before_TBD = jnp.concatenate([h_BD[None], h_TBD[:-1]])
  c_before_TBD = jnp.concatenate([c_BD[None], c_TBD[:-1]])
  if keep_TB1 is not None:
    h_before_TBD, c_before_TBD = (
      h_before_TBD * keep_TB1,
      c_before_TBD * keep_TB1,
    )
  saved = (
    recurrent_kernel,
    gates_TB4D,
    c_TBD,
    h_before_TBD,
    c_before_TBD,
    keep_TB1,
  )
  return (h_TBD, state), saved


def _recurrence_bwd(saved, cotangents):
  kernel, gates_TB4D, c_TBD, h_before_TBD, c_before_TBD, keep_TB1 = saved
  dh_TBD, (dh_last, dc_last) = cotangents
  transposed_kernel = jnp.swapaxes(kernel, 0, 1)

  def step(carried, inputs):
    dh, dc = carried
    dh_out, gates, c, c_before, keep = inputs
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    dh = dh + dh_out
    tanh_c = jnp.tanh(c)
    dc = dc + dh * o * (1.0 - tanh_c * tanh_c)
    dz = jnp.concatenate(
      [
        dc * g * i * (1.0 - i),
        dc * c_before * f * (1.0 - f),
        dc * i * (1.0 - g * g),
        dh * tanh_c * o * (1.0 - o),
      ],
      axis=-1,
    )
    dh, dc = _matmul(dz, transposed_kernel), dc * f
    if keep is not None:
      dh, dc = dh * keep, dc * keep
    return (dh, dc), dz

  (dh_BD, dc_BD), dprojected_TB4D = jax.lax.scan(
    step,
    (dh_last, dc_last),
    (dh_TBD, gates_TB4D, c_TBD, c_before_TBD, keep_TB1),
    reverse=True,
  )
  flat_h = h_before_TBD.reshape(-1, h_before_TBD.shape[-1])
  flat_dz = dprojected_TB4D.reshape(-1, dprojected_TB4D.shape[-1])
  dkernel = jnp.matmul(
    flat_h.T.astype(kernel.dtype),
    flat_dz.astype(kernel.dtype),
    preferred_element_type=jnp.float32,
  ).astype(kernel.dtype)
  dkeep = None if keep_TB1 is None else jnp.zeros_like(keep_TB1)
  return dprojected_TB4D, dkernel, dh_BD, dc_BD, dkeep


_recurrence.defvjp(_recurrence_fwd, _recurrence_bwd)
