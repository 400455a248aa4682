# SPDX-License-Identifier: Apache-2.0
"""GELU in its tanh form, with a gradient that stores its input alone."""

import math

import jax
import jax.numpy as jnp

from lmjax.ops.matmul import wide
from lmjax.types import Array

_SCALE = math.sqrt(2.0 / math.pi)
_CUBIC = 0.044715


def _tanh(x: Array) -> Array:
  return jnp.tanh(_SCALE * (x + _CUBIC * x * x * x))


@jax.custom_vjp
def gelu(x: Array) -> Array:
  """Apply the Gaussian error linear unit, approximated by tanh.

  Hendrycks & Gimpel 2016 (arXiv:1606.08415). Differentiated automatically it
  would keep four arrays of the feed-forward width for the way back. It is
  computed in float32 at least and returned in the dtype of its input.
  """
  z = x.astype(wide(x.dtype))
  return (0.5 * z * (1.0 + _tanh(z))).astype(x.dtype)


def _fwd(x: Array) -> tuple[Array, Array]:
  return gelu(x), x


def _bwd(x: Array, dy: Array) -> tuple[Array]:
  z = x.astype(wide(x.dtype))
  tanh = _tanh(z)
  cotangent = _SCALE * (1.0 + 3.0 * _CUBIC * z * z)
  dx = 0.5 * (1.0 + tanh + z * (1.0 - tanh * tanh) * cotangent)
  return ((dy * dx).astype(x.dtype),)


gelu.defvjp(_fwd, _bwd)
