# SPDX-License-Identifier: Apache-2.0
"""Causal convolutions over time, whose state is the inputs that they look at.

A convolution of size k sees each token and the k - 1 before it. Before the
first token of a document there are zeros, however many documents a row holds.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.layers.dense import apply_affine
from lmjax.types import Array

Past = tuple[Array, ...]  # the last k - 1 inputs, [B, k - 1, D], if there are


def empty_past(batch_size: int, size: int, width: int) -> Past:
  """Make the state of a convolution before the first token."""
  if size < 2:
    return ()
  return (jnp.zeros((batch_size, size - 1, width), jnp.float32),)


def steps_back(
  x_BTD: Array, past: Past, resets_BT: Array | None = None
) -> tuple[list[Array], Past]:
  """Return shifted copies of the inputs, one per offset.

  >>> steps_back([a, b, c, d], past=([y, z],), resets=[0, 0, 1, 0])
  [[a, b, c, d], [z, a, 0, c], [y, z, 0, 0]], ([c, d],)

  Args:
    x_BTD: inputs.
    past: the inputs before the first, as many as the largest offset.
    resets_BT: True at the first token of a document; None if there is none.

  Returns:
    What came 0, 1, 2 ... steps before each input in its document, zeros where
    nothing did; and the past of the inputs to come.
  """
  if not past:
    return [x_BTD], ()
  (before_BCD,) = past
  time, size = x_BTD.shape[1], before_BCD.shape[1]
  both = jnp.concatenate([before_BCD.astype(x_BTD.dtype), x_BTD], axis=1)
  views = [both[:, size - back :][:, :time] for back in range(size + 1)]
  last_BCD = both[:, time:].astype(before_BCD.dtype)
  if resets_BT is None:
    return views, (last_BCD,)
  steps_T = jnp.arange(time)
  starts_BT = jnp.where(resets_BT.astype(bool), steps_T, -size)
  starts_BT = jax.lax.cummax(starts_BT, axis=1)
  since_BT = steps_T[None] - starts_BT
  views[1:] = [
    jnp.where((since_BT >= back)[..., None], context, 0)
    for back, context in enumerate(views[1:], start=1)
  ]
  kept_BC = jnp.arange(time - size, time)[None] >= starts_BT[:, -1:]
  return views, (jnp.where(kept_BC[..., None], last_BCD, 0),)


class DepthwiseConvolution(nn.Module):
  """Weigh the last few values of each feature by itself.

  Attributes:
    size: how many values; 0 leaves everything as it is.
    dtype: dtype of the output.
    param_dtype: dtype of the parameters.
  """

  size: int
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTD: Array, past: Past, resets_BT: Array | None
  ) -> tuple[Array, Past]:
    """Convolve [B, T, D]; see steps_back for the state."""
    if not self.size:
      return x_BTD, past
    limit = self.size**-0.5  # as PyTorch does

    def uniform(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
      return jax.random.uniform(key, shape, dtype, -limit, limit)

    width = x_BTD.shape[-1]
    taps = self.param("taps", uniform, (self.size, width), self.param_dtype)
    bias = self.param("bias", nn.initializers.zeros, (width,), self.param_dtype)
    views, past = steps_back(x_BTD.astype(self.dtype), past, resets_BT)
    y_BTD = bias.astype(self.dtype)[None, None]
    for tap_D, view_BTD in zip(taps.astype(self.dtype), views, strict=True):
      y_BTD = y_BTD + tap_D[None, None] * view_BTD
    return y_BTD, past


def normalized_kernel(kernel: Array, scale: Array, **_: Array) -> Array:
  """Give the columns of a kernel lengths of their own.

  Salimans & Kingma 2016 (arXiv:1602.07868).
  """
  squares = jnp.square(kernel.astype(jnp.float32))
  scale = jnp.expand_dims(scale, range(kernel.ndim - scale.ndim))
  return kernel * scale * jax.lax.rsqrt(squares.sum(axis=0, keepdims=True))


class Convolution(nn.Module):
  """Map the last few vectors to one, of any width.

  Attributes:
    features: width F of what goes out.
    size: how many vectors.
    weight_norm: whether the columns of the kernel have lengths of their own.
    init_scale: standard deviation of the kernel at initialization, times the
      root of how many values an output is made of.
    dtype: dtype of the matmul and of the output; it accumulates in float32.
    param_dtype: dtype of the parameters.
  """

  features: int
  size: int
  weight_norm: bool
  init_scale: float = 1.0
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTD: Array, past: Past, resets_BT: Array | None
  ) -> tuple[Array, Past]:
    """Convolve [B, T, D] to [B, T, F]; see steps_back for the state."""
    inputs = self.size * x_BTD.shape[-1]
    kernel_IF = self.param(
      "kernel",
      nn.initializers.normal(self.init_scale * inputs**-0.5),
      (inputs, self.features),
      self.param_dtype,
    )
    if self.weight_norm:
      scale_F = self.param(
        "scale",
        nn.initializers.constant(self.init_scale),
        (self.features,),
        self.param_dtype,
      )
      kernel_IF = normalized_kernel(kernel_IF, scale_F)
    bias_F = self.param(
      "bias", nn.initializers.zeros, (self.features,), self.param_dtype
    )
    views, past = steps_back(x_BTD.astype(self.dtype), past, resets_BT)
    x_BTI = jnp.concatenate(views, axis=-1)
    (y_BTF,) = apply_affine(x_BTI, [(kernel_IF, bias_F)], 1, self.dtype)
    return y_BTF, past
