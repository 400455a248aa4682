# SPDX-License-Identifier: Apache-2.0
"""Convolutions over a text that is there as a whole, windows of several sizes.

Inputs before the first token and after the last are zeros, whatever the padding
contains.

Dimension letters:

    W  positions of a window
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.dense import Affine, apply_affine
from lmjax.types import Array


def shift(x_BTF: Array, steps: int) -> Array:
  """Move x[t + steps] to t, with zeros from outside.

  >>> shift([a, b, c, d], 1), shift([a, b, c, d], -1)
  [b, c, d, 0], [0, a, b, c]
  """
  before, behind = max(-steps, 0), max(steps, 0)
  padded = jnp.pad(x_BTF, ((0, 0), (before, behind), (0, 0)))
  return padded[:, behind : behind + x_BTF.shape[1]]


class CenteredConvolution(nn.Module):
  """Map the vectors around each token to one, in windows of several sizes.

  A window of size k contains a token, the (k − 1) // 2 before it and the k // 2
  after it. Every token is multiplied by all kernels at once, and the products
  are shifted and summed, so that windows are never stored.

  Attributes:
    features: width F of what a window of each size makes.
    sizes: how many tokens are in a window.
    init_scale: standard deviation of the kernels at initialization.
    initializer: initializer of the kernels, one of INITIALIZERS.
    dtype: dtype of the matmul and of the output; it accumulates in float32.
    param_dtype: dtype of the parameters.
  """

  features: int
  sizes: Sequence[int]
  init_scale: float = 0.02
  initializer: str = "normal"
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x_BTE: Array, mask_BT: Array) -> Array:
    """Convolve [B, T, E] to [B, T, sizes · F]."""
    x_BTE = jnp.where(mask_BT[..., None], x_BTE, 0)
    maps = [
      Affine(
        (x_BTE.shape[-1],),
        (size, self.features),
        init_scale=self.init_scale,
        initializer=self.initializer,
        param_dtype=self.param_dtype,
        name=f"conv_{size}",
      )()
      for size in self.sizes
    ]
    made = []
    for size, products_BTWF in zip(
      self.sizes, apply_affine(x_BTE, maps, 1, self.dtype), strict=True
    ):
      middle = (size - 1) // 2
      made.append(
        sum(
          shift(products_BTWF[:, :, place], place - middle)
          for place in range(size)
        )
      )
    y_BTF = jnp.concatenate(made, axis=-1)
    width = len(self.sizes) * self.features
    bias_F = self.param("bias", nn.initializers.zeros, width, self.param_dtype)
    return y_BTF + bias_F.astype(y_BTF.dtype)[None, None]
