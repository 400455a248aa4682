# SPDX-License-Identifier: Apache-2.0
"""Recurrent cells: one step forward, and its gradient by hand.

A cell sees arrays [..., D, B]: features before the batch, and its gates along
the first axis. `recurrence.py` runs it over time; nothing here knows time.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lmjax.types import Array

State = tuple[Array, ...]  # the hidden vector first


class Cell(Protocol):
  """One kind of recurrence.

  Attributes:
    num_gates: blocks of D columns in its kernels.
    num_states: arrays of its state.
  """

  num_gates: int
  num_states: int

  def step(
    self, projected: Array, recurrent: Array, state: State
  ) -> tuple[State, State]:
    """Make the next state.

    Args:
      projected: input times input kernel plus bias, [gates, D, B].
      recurrent: hidden vector times recurrent kernel, [gates, D, B].
      state: the state before.

    Returns:
      The state after, and what the gradient needs.
    """

  def gradient(self, dstate: State, saved: State) -> tuple[Array, State]:
    """Go one step back.

    Args:
      dstate: slopes of the loss in the state after.
      saved: what `step` saved.

    Returns:
      Slopes in `projected`, and those in the state before that do not pass
      through the recurrent kernel.
    """

  def recurrent_slopes(self, dprojected: Array, saved: State) -> Array:
    """Turn slopes in `projected` into slopes in `recurrent`.

    None instead of a method where they are the same.
    """


def _stack(gates: tuple[Array, ...]) -> Array:
  """Stack the slopes of gates by selection.

  XLA's CPU backend compiles a concatenation of expressions into branches, and
  a selection into vector instructions.
  """
  index = jax.lax.broadcasted_iota(jnp.int32, (len(gates), 1, 1), 0)
  stacked = gates[0][None]
  for gate in range(1, len(gates)):
    stacked = jnp.where(index == gate, gates[gate][None], stacked)
  return stacked


@dataclasses.dataclass(frozen=True)
class LSTMCell:
  """Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.

  Gates: input, forget, candidate, output. State: h, c.
  """

  num_gates = 4
  num_states = 2

  def step(self, projected, recurrent, state):
    """See Cell."""
    i, f, g, o = projected + recurrent
    i, f, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o)
    g = jnp.tanh(g)
    c = f * state[1] + i * g
    return (o * jnp.tanh(c), c), (i, f, g, o, state[1])

  def gradient(self, dstate, saved):
    """See Cell."""
    (dh, dc), (i, f, g, o, c_before) = dstate, saved
    tanh_c = jnp.tanh(f * c_before + i * g)
    dc = dc + dh * o * (1.0 - tanh_c * tanh_c)
    dgates = (
      dc * g * i * (1.0 - i),
      dc * c_before * f * (1.0 - f),
      dc * i * (1.0 - g * g),
      dh * tanh_c * o * (1.0 - o),
    )
    return _stack(dgates), (jnp.zeros_like(dh), dc * f)

  recurrent_slopes = None


@dataclasses.dataclass(frozen=True)
class GRUCell:
  """Cho et al. 2014 (arXiv:1406.1078), as cuDNN and PyTorch compute it.

  The reset gate multiplies the recurrent product, not the state. Gates: reset,
  update, candidate. State: h.
  """

  num_gates = 3
  num_states = 1

  def step(self, projected, recurrent, state):
    """See Cell."""
    r, z = jax.nn.sigmoid(projected[:2] + recurrent[:2])
    n = jnp.tanh(projected[2] + r * recurrent[2])
    return (n + z * (state[0] - n),), (r, z, n, recurrent[2], state[0])

  def gradient(self, dstate, saved):
    """See Cell."""
    (dh,), (r, z, n, recurrent_n, h) = dstate, saved
    dn = dh * (1.0 - z) * (1.0 - n * n)
    dr = dn * recurrent_n * r * (1.0 - r)
    dz = dh * (h - n) * z * (1.0 - z)
    return _stack((dr, dz, dn)), (dh * z,)

  def recurrent_slopes(self, dprojected, saved):
    """See Cell."""
    dr, dz, dn = dprojected
    return _stack((dr, dz, dn * saved[0]))


class Activation(NamedTuple):
  """A function, and its slope as a function of its value."""

  value: Callable[[Array], Array]
  slope: Callable[[Array], Array]


ACTIVATIONS = {
  "tanh": Activation(jnp.tanh, lambda h: 1.0 - h * h),
  "relu": Activation(jax.nn.relu, lambda h: (h > 0).astype(h.dtype)),
}


@dataclasses.dataclass(frozen=True)
class RNNCell:
  """Elman 1990: h = activation(projected + recurrent)."""

  activation: str = "tanh"
  num_gates = 1
  num_states = 1

  def step(self, projected, recurrent, state):
    """See Cell."""
    del state
    h = ACTIVATIONS[self.activation].value(projected[0] + recurrent[0])
    return (h,), (h,)

  def gradient(self, dstate, saved):
    """See Cell."""
    slope = ACTIVATIONS[self.activation].slope(saved[0])
    return (dstate[0] * slope)[None], (jnp.zeros_like(dstate[0]),)

  recurrent_slopes = None


CELLS = {"lstm": LSTMCell(), "gru": GRUCell(), "rnn": RNNCell()}
