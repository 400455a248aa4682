# SPDX-License-Identifier: Apache-2.0
"""Linear maps that are block-diagonal: each head sees its own features."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from lmjax.types import Array


class BlockKernel(nn.Module):
  """The parameter of a block-diagonal map.

  Attributes:
    num_blocks: number H of blocks.
    inputs: how many features come in, over all blocks.
    features: how many come out.
    init_scale: standard deviation at initialisation.
    param_dtype: dtype of the parameter.
  """

  num_blocks: int
  inputs: int
  features: int
  init_scale: float
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self) -> Array:
    """Return the kernel, [H, inputs / H, features / H]."""
    shape = (self.inputs // self.num_blocks, self.features // self.num_blocks)
    init = nn.initializers.normal(self.init_scale)
    shape = (self.num_blocks, *shape)
    return self.param("blocks", init, shape, self.param_dtype)


def apply_blocks(
  x_BTD: Array, kernels: Sequence[Array], dtype: jnp.dtype
) -> list[Array]:
  """Map one array by several block-diagonal maps of as many blocks.

  The blocks stand first in the product: one matmul each, without gaps.

  Args:
    x_BTD: inputs.
    kernels: [H, D / H, F / H] each.
    dtype: of the matmul and the results.

  Returns:
    [B, T, F] for each kernel.
  """
  batch, time, _ = x_BTD.shape
  kernel_HKJ = jnp.concatenate([k.astype(dtype) for k in kernels], axis=-1)
  heads, inputs, _ = kernel_HKJ.shape
  x_NHK = x_BTD.astype(dtype).reshape(-1, heads, inputs)
  y_HNJ = jnp.einsum("nhk,hkj->hnj", x_NHK, kernel_HKJ)
  results, start = [], 0
  for kernel in kernels:
    features = kernel.shape[-1]
    y_NHJ = y_HNJ[..., start : start + features].swapaxes(0, 1)
    results.append(y_NHJ.reshape(batch, time, heads * features))
    start += features
  return results
