# SPDX-License-Identifier: Apache-2.0
"""Linear maps that are block-diagonal: blocks of features see themselves."""

import flax.linen as nn
import jax.numpy as jnp

from lmjax.types import Array


class BlockDiagonal(nn.Module):
  """Map each block of features to as many, by its own kernel.

  Attributes:
    num_blocks: number H of blocks; divides the width.
    init_scale: standard deviation of the kernels at initialization.
    dtype: dtype of the matmuls and of the output.
    param_dtype: dtype of the parameters.
  """

  num_blocks: int
  init_scale: float
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x_BTD: Array) -> Array:
    """Map [B, T, D] to [B, T, D].

    Blocks are the first axis of the product, so it is one batched matmul.
    Several maps of one array share its transpose, so concatenating them saves
    nothing.
    """
    size = x_BTD.shape[-1] // self.num_blocks
    blocks_HKJ = self.param(
      "blocks",
      nn.initializers.normal(self.init_scale),
      (self.num_blocks, size, size),
      self.param_dtype,
    )
    x_NHK = x_BTD.astype(self.dtype).reshape(-1, self.num_blocks, size)
    y_HNJ = jnp.einsum("nhk,hkj->hnj", x_NHK, blocks_HKJ.astype(self.dtype))
    return jnp.swapaxes(y_HNJ, 0, 1).reshape(x_BTD.shape)
