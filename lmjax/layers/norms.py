# SPDX-License-Identifier: Apache-2.0
"""Normalizations by name; all compute their statistics in float32."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.errors import check_choice
from lmjax.ops.layout import mean_over_rows
from lmjax.types import Array

# Epsilons where none is given: those of Flax and, for batches, of PyTorch.
DEFAULT_EPSILON = 1e-6
BATCH_NORM_EPSILON = 1e-5


class BatchNorm(nn.Module):
  """Normalize each feature over all positions of the batch, of all devices.

  Ioffe & Szegedy 2015 (arXiv:1502.03167). It goes by the batch's own mean and
  variance, and moves the running ones towards them, exactly while the caller
  lets the collection "batch_stats" change; else it goes by the running ones.
  In training a position thus depends on later ones; in evaluation it does not.

  Attributes:
    momentum: weight of the old running statistics in each update.
    epsilon: added to the variance.
    dtype: dtype of what is returned.
    param_dtype: dtype of the parameters.
  """

  momentum: float = 0.9
  epsilon: float = BATCH_NORM_EPSILON
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Normalize [..., D] over all axes but the last."""
    shape = x.shape[-1:]
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    scale = self.param("scale", ones, shape, self.param_dtype)
    bias = self.param("bias", zeros, shape, self.param_dtype)
    running = {
      "mean": self.variable("batch_stats", "mean", jnp.zeros, shape),
      "variance": self.variable("batch_stats", "variance", jnp.ones, shape),
    }
    x32 = x.astype(jnp.float32)
    leading = range(x.ndim - 1)  # axes of x before the features
    if self.is_mutable_collection("batch_stats"):
      axes = tuple(range(x.ndim - 1))
      mean = mean_over_rows(x32.mean(axes))
      variance = mean_over_rows(
        jnp.square(x32 - jnp.expand_dims(mean, leading)).mean(axes)
      )
      if not self.is_initializing():
        for name, new in (("mean", mean), ("variance", variance)):
          old = running[name].value
          new = self.momentum * old + (1.0 - self.momentum) * new
          running[name].value = jax.lax.stop_gradient(new)
    else:
      mean, variance = running["mean"].value, running["variance"].value
    factor = jax.lax.rsqrt(variance + self.epsilon) * scale
    mean, factor, bias = (
      jnp.expand_dims(x, leading) for x in (mean, factor, bias)
    )
    return ((x32 - mean) * factor + bias).astype(self.dtype)


NORMS = {
  "layer": nn.LayerNorm,  # Ba et al. 2016, arXiv:1607.06450
  "layer_no_bias": functools.partial(nn.LayerNorm, use_bias=False),
  "rms": nn.RMSNorm,  # Zhang & Sennrich 2019, arXiv:1910.07467
  "batch": BatchNorm,
}

# Each head [..., H, K] by itself, without a bias.
head_norm = functools.partial(
  nn.LayerNorm, use_bias=False, reduction_axes=-1, feature_axes=(-2, -1)
)


def normalization(
  name: str, epsilon: float = 0.0, **options: jnp.dtype
) -> functools.partial:
  """Return the constructor of a normalization.

  >>> normalization("rms", 1e-5)(name="norm")
  RMSNorm(epsilon=1e-05, ...)

  Args:
    name: one of NORMS.
    epsilon: added to the variance, or to the mean square of "rms"; 0 for the
      default, BATCH_NORM_EPSILON of "batch" and DEFAULT_EPSILON of the others.
    **options: further attributes, such as `dtype` and `param_dtype`.

  Raises:
    UsageError: if the name is not known.
  """
  check_choice("norm", name, NORMS)
  default = BATCH_NORM_EPSILON if name == "batch" else DEFAULT_EPSILON
  return functools.partial(NORMS[name], epsilon=epsilon or default, **options)
