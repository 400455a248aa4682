# SPDX-License-Identifier: Apache-2.0
"""Linear recurrences over time, h[t] = a[t] · h[t-1] + b[t], of each feature.

What is slow in a recurrence, the matmuls, does not depend on the state here, so
all of them come before it and are as large as in a feed-forward layer. The
gradient is the same recurrence, run backwards: with g[t] the gradient of the
loss with respect to h[t], g[t] = dh[t] + a[t+1] · g[t+1].

A CPU goes through time once and leaves every array where it is, as fast as its
memory can be read and written; elsewhere a tree of products that grows with the
logarithm of the length (Blelloch 1990; Martin & Cundy 2018, arXiv:1709.04057).
"""

import jax
import jax.numpy as jnp

from lmjax.ops.layout import on_own_rows
from lmjax.ops.matmul import wide
from lmjax.types import Array


def linear_recurrence(
  decay_BTD: Array,
  input_BTD: Array,
  state_BD: Array,
  resets_BT: Array | None = None,
) -> tuple[Array, Array]:
  """Return h[t] = decay[t] · h[t-1] + input[t] for every t.

  Args:
    decay_BTD: what each state keeps of the one before.
    input_BTD: what is added.
    state_BD: the state before the first step.
    resets_BT: True where the state is reset; None for no resets.

  Returns:
    All states, [B, T, D], and the last, [B, D], in float32 at least.
  """
  dtype = wide(input_BTD.dtype)
  if resets_BT is not None:
    decay_BTD = jnp.where(resets_BT[..., None], 0.0, decay_BTD)
  rows = (x.astype(dtype) for x in (decay_BTD, input_BTD, state_BD))
  states_BTD = on_own_rows(lambda rows, _: _recurrence(*rows), tuple(rows), ())
  return states_BTD, states_BTD[:, -1]


def _by_steps(decay, inputs, state, reverse):
  """Write one step after the other; a scan would turn [B, T] to [T, B]."""
  last = inputs.shape[1] - 1

  def step(index, carry):
    state, states = carry
    t = last - index if reverse else index
    decay_t, input_t = (
      jax.lax.dynamic_index_in_dim(x, t, 1, False) for x in (decay, inputs)
    )
    new = input_t + (state if reverse else decay_t * state)
    states = jax.lax.dynamic_update_index_in_dim(states, new, t, 1)
    return decay_t * new if reverse else new, states

  carry = state, jnp.zeros_like(inputs)
  return jax.lax.fori_loop(0, last + 1, step, carry)[1]


def _by_tree(decay, inputs, state, reverse):
  def join(earlier, later):
    return earlier[0] * later[0], earlier[1] * later[0] + later[1]

  if reverse:  # the state is already multiplied, see _accumulate
    ones = jnp.ones_like(decay[:, :1])
    decay = jnp.concatenate([decay[:, 1:], ones], axis=1)
  first = -1 if reverse else 0
  inputs = inputs.at[:, first].add(decay[:, first] * state)
  scan = jax.lax.associative_scan
  return scan(join, (decay, inputs), reverse=reverse, axis=1)[1]


def _accumulate(decay, inputs, state, reverse=False) -> Array:
  """Return s[t] = inputs[t] + decay[t] · s[t-1] for every t.

  If `reverse`, s[t] = inputs[t] + decay[t+1] · s[t+1], from the last t on,
  where `state` is the product with the value after it.
  """
  if inputs.shape[1] == 1:
    return inputs + (state if reverse else decay[:, 0] * state)[:, None]
  loop = jax.default_backend() == "cpu"
  return (_by_steps if loop else _by_tree)(decay, inputs, state, reverse)


@jax.custom_vjp
def _recurrence(decay, inputs, state):
  return _accumulate(decay, inputs, state)


def _fwd(decay, inputs, state):
  states = _accumulate(decay, inputs, state)
  return states, (decay, state, states)


def _bwd(saved, dstates):
  decay, state, states = saved
  gradients = _accumulate(decay, dstates, jnp.zeros_like(state), reverse=True)
  before = jnp.concatenate([state[:, None], states[:, :-1]], axis=1)
  return gradients * before, gradients, decay[:, 0] * gradients[:, 0]


_recurrence.defvjp(_fwd, _bwd)
