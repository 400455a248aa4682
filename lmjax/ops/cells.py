# SPDX-License-Identifier: Apache-2.0
"""Recurrent cells: one step and its hand-written gradient.

Cells use arrays [..., D, B]: features before the batch, and gates along the
first axis. `recurrence.py` scans them over time.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lmjax.types import Array

State = tuple[Array, ...]  # the hidden vector first
Vectors = tuple[Array, ...]


class Cell(Protocol):
  """One kind of recurrence.

  Attributes:
    num_gates: blocks of D columns in its kernels.
    num_states: arrays of its state.
  """

  num_gates: int
  num_states: int

  def step(
    self, projected: Array, recurrent: Array, state: State, vectors: Vectors
  ) -> tuple[State, State]:
    """Compute the next state.

    Args:
      projected: input times input kernel plus bias, [gates, D, B].
      recurrent: hidden vector times recurrent kernel, [gates, D, B].
      state: the state before.
      vectors: parameters beside the kernels; most cells have none.

    Returns:
      The state after, and what the gradient needs.
    """

  def gradient(
    self, dstate: State, saved: State, vectors: Vectors
  ) -> tuple[Array, tuple[Array | None, ...], Vectors]:
    """Compute the gradients of one step.

    Args:
      dstate: gradient of the loss with respect to the next state.
      saved: what `step` saved.
      vectors: as `step` took them.

    Returns:
      The gradients with respect to `projected`; to the previous state, except
      through the recurrent kernel, None for none; and to `vectors`.
    """

  def recurrent_gradients(
    self, dprojected: Array, saved: State, vectors: Vectors
  ) -> Array:
    """Return the gradient of `recurrent` given that of `projected`.

    None instead of a method if they are equal.
    """


def _stack(gates: tuple[Array, ...]) -> Array:
  """Stack the gradients of gates by selection.

  XLA's CPU backend compiles a concatenation of expressions into branches, and
  a selection into vector instructions.
  """
  index = jax.lax.broadcasted_iota(jnp.int32, (len(gates), 1, 1), 0)
  stacked = gates[0][None]
  for gate in range(1, len(gates)):
    stacked = jnp.where(index == gate, gates[gate][None], stacked)
  return stacked


def _activate(gates: Array) -> tuple[Array, Array, Array, Array]:
  """Return the gates and the candidate of an LSTM, given their sums."""
  i, f, g, o = gates
  i, f, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o)
  return i, f, jnp.tanh(g), o


def _gate_gradients(
  dc: Array, do: Array, gates: tuple[Array, ...], c_before: Array
) -> Array:
  """Return gradients of the pre-activations of an LSTM's gates."""
  i, f, g, o = gates
  return _stack(
    (
      dc * g * i * (1.0 - i),
      dc * c_before * f * (1.0 - f),
      dc * i * (1.0 - g * g),
      do * o * (1.0 - o),
    )
  )


@dataclasses.dataclass(frozen=True)
class LSTMCell:
  """Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.

  Gates: input, forget, candidate, output. State: h, c.
  """

  num_gates = 4
  num_states = 2

  def step(self, projected, recurrent, state, vectors):
    """See Cell."""
    del vectors
    i, f, g, o = _activate(projected + recurrent)
    c = f * state[1] + i * g
    return (o * jnp.tanh(c), c), (i, f, g, o, state[1])

  def gradient(self, dstate, saved, vectors):
    """See Cell."""
    del vectors
    (dh, dc), (i, f, g, o, c_before) = dstate, saved
    tanh_c = jnp.tanh(f * c_before + i * g)
    dc = dc + dh * o * (1.0 - tanh_c * tanh_c)
    dgates = _gate_gradients(dc, dh * tanh_c, (i, f, g, o), c_before)
    return dgates, (None, dc * f), ()

  recurrent_gradients = None


NORM_EPSILON = 1e-5  # default of PyTorch's LayerNorm


def _normalize(
  x: Array, axes: tuple[int, ...], epsilon: float
) -> tuple[Array, Array]:
  """Normalize to mean 0 and variance 1; return also the scale."""
  centered = x - x.mean(axes, keepdims=True)
  variance = jnp.mean(centered * centered, axes, keepdims=True)
  scale = jax.lax.rsqrt(variance + epsilon)
  return centered * scale, scale


def _normalize_gradient(
  gradients: Array, normalized: Array, scale: Array, axes: tuple[int, ...]
) -> Array:
  """Return the gradient of the input of `_normalize`."""
  mean = gradients.mean(axes, keepdims=True)
  along = jnp.mean(gradients * normalized, axes, keepdims=True)
  return scale * (gradients - mean - normalized * along)


@dataclasses.dataclass(frozen=True)
class LayerNormLSTMCell:
  """The LSTM of Ba et al. 2016 (arXiv:1607.06450), equations 20 to 22.

  Both products are normalized over all gates together, and the memory before
  its tanh. The caller normalizes the projected inputs, which need no loop; of
  the three biases that the paper adds to the gates one does the same.
  Vectors: scale_Z of the recurrent product, scale_D and bias_D of the memory.

  Attributes:
    epsilon: added to the variances.
  """

  epsilon: float = NORM_EPSILON
  num_gates = 4
  num_states = 2

  def step(self, projected, recurrent, state, vectors):
    """See Cell."""
    scale_Z, scale_D, bias_D = vectors
    normalized, scale = _normalize(recurrent, (0, 1), self.epsilon)
    gates = projected + scale_Z.reshape(4, -1, 1) * normalized
    i, f, g, o = _activate(gates)
    c = f * state[1] + i * g
    normalized_c, _ = _normalize(c, (0,), self.epsilon)
    level = scale_D[:, None] * normalized_c + bias_D[:, None]
    saved = (i, f, g, o, state[1], normalized, scale)
    return (o * jnp.tanh(level), c), saved

  def gradient(self, dstate, saved, vectors):
    """See Cell."""
    (dh, dc), (i, f, g, o, c_before, normalized, _) = dstate, saved
    _, scale_D, bias_D = vectors
    level, c_scale = _normalize(f * c_before + i * g, (0,), self.epsilon)
    tanh_c = jnp.tanh(scale_D[:, None] * level + bias_D[:, None])
    dlevel = dh * o * (1.0 - tanh_c * tanh_c)
    dc = dc + _normalize_gradient(
      dlevel * scale_D[:, None], level, c_scale, (0,)
    )
    dgates = _gate_gradients(dc, dh * tanh_c, (i, f, g, o), c_before)
    dvectors = (
      jnp.sum(dgates * normalized, axis=2).reshape(-1),
      jnp.sum(dlevel * level, axis=1),
      jnp.sum(dlevel, axis=1),
    )
    return dgates, (None, dc * f), dvectors

  def recurrent_gradients(self, dprojected, saved, vectors):
    """See Cell."""
    *_, normalized, scale = saved
    gradients = dprojected * vectors[0].reshape(4, -1, 1)
    return _normalize_gradient(gradients, normalized, scale, (0, 1))


@dataclasses.dataclass(frozen=True)
class GRUCell:
  """Cho et al. 2014 (arXiv:1406.1078), as cuDNN and PyTorch compute it.

  The reset gate multiplies the recurrent product, not the state. Gates: reset,
  update, candidate. State: h.
  """

  num_gates = 3
  num_states = 1

  def step(self, projected, recurrent, state, vectors):
    """See Cell."""
    del vectors
    r, z = jax.nn.sigmoid(projected[:2] + recurrent[:2])
    n = jnp.tanh(projected[2] + r * recurrent[2])
    return (n + z * (state[0] - n),), (r, z, n, recurrent[2], state[0])

  def gradient(self, dstate, saved, vectors):
    """See Cell."""
    del vectors
    (dh,), (r, z, n, recurrent_n, h) = dstate, saved
    dn = dh * (1.0 - z) * (1.0 - n * n)
    dr = dn * recurrent_n * r * (1.0 - r)
    dz = dh * (h - n) * z * (1.0 - z)
    return _stack((dr, dz, dn)), (dh * z,), ()

  def recurrent_gradients(self, dprojected, saved, vectors):
    """See Cell."""
    del vectors
    dr, dz, dn = dprojected
    return _stack((dr, dz, dn * saved[0]))


class Activation(NamedTuple):
  """A function, and its derivative as a function of its value."""

  value: Callable[[Array], Array]
  cotangent: Callable[[Array], Array]


ACTIVATIONS = {
  "tanh": Activation(jnp.tanh, lambda h: 1.0 - h * h),
  "relu": Activation(jax.nn.relu, lambda h: (h > 0).astype(h.dtype)),
}


@dataclasses.dataclass(frozen=True)
class RNNCell:
  """Elman 1990: h = activation(projected + recurrent)."""

  activation: str
  num_gates = 1
  num_states = 1

  def step(self, projected, recurrent, state, vectors):
    """See Cell."""
    del state, vectors
    h = ACTIVATIONS[self.activation].value(projected[0] + recurrent[0])
    return (h,), (h,)

  def gradient(self, dstate, saved, vectors):
    """See Cell."""
    del vectors
    cotangent = ACTIVATIONS[self.activation].cotangent(saved[0])
    return (dstate[0] * cotangent)[None], (None,), ()

  recurrent_gradients = None


CELLS = {
  "lstm": LSTMCell(),
  "layer_norm_lstm": LayerNormLSTMCell(),
  "gru": GRUCell(),
  "rnn": RNNCell("tanh"),
  "relu_rnn": RNNCell("relu"),
}
