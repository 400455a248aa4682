# SPDX-License-Identifier: Apache-2.0
"""The LSTM of cuDNN, which fuses all steps of a layer on an NVIDIA GPU."""

import jax.numpy as jnp
from jax.experimental import rnn

from lmjax.ops.cells import State
from lmjax.ops.recurrence import Kernels
from lmjax.types import Array


def pack(kernels: Kernels) -> Array:
  """Lay the parameters of one layer out as cuDNN wants them: flat, float32.

  cuDNN knows the same gates in the same order, its kernels are transposed and
  it has a bias for each of the two products.
  """
  zeros_Z = jnp.zeros_like(kernels.bias_Z)
  recurrent_bias_Z = kernels.recurrent_bias_Z
  parts = (
    kernels.input_EZ.T,
    kernels.recurrent_DZ.T,
    kernels.bias_Z,
    zeros_Z if recurrent_bias_Z is None else recurrent_bias_Z,
  )
  return jnp.concatenate([part.ravel().astype(jnp.float32) for part in parts])


def cudnn_layer(
  x_BTE: Array, kernels: Kernels, state: State
) -> tuple[Array, State]:
  """Run one LSTM layer; float32 only, and only where there is such a GPU.

  Args:
    x_BTE: inputs.
    kernels: the parameters, as `scan_layer` takes them.
    state: (h_BD, c_BD) before the first step.

  Returns:
    hidden_BTD, and the state after the last step.
  """
  batch, time, inputs = x_BTE.shape
  h_BD, c_BD = state
  hidden_BTD, h_LBD, c_LBD = rnn.lstm(
    x_BTE,
    h_BD[None],
    c_BD[None],
    pack(kernels),
    jnp.full(batch, time, jnp.int32),
    input_size=inputs,
    hidden_size=h_BD.shape[-1],
    num_layers=1,
    dropout=0.0,
    bidirectional=False,
  )
  return hidden_BTD, (h_LBD[0], c_LBD[0])
