# SPDX-License-Identifier: Apache-2.0
"""One vector of a text from one vector a token."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.types import Array

POOLINGS = ("last", "first", "mean", "max", "attention")


class Pooling(nn.Module):
  """Pool over the tokens of each text.

  Attributes:
    kind: "last" takes the token that has read all the others: of features that
      were read backward, the first; "first" the first token; "mean" and "max"
      each feature's over the tokens; "attention" the mean by weights that are
      learned (Lin et al. 2017, arXiv:1703.03130, with one hop).
    backward_width: how many features, at the end, were read backward.
    dtype: dtype of the attention's matmul; softmax is computed in float32.
    param_dtype: dtype of its parameters.
  """

  kind: str
  backward_width: int = 0
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, hidden_BTD: Array, mask_BT: Array) -> Array:
    """Pool [B, T, D] to [B, D]; a text without tokens becomes 0."""
    if self.kind in ("last", "first"):
      return self._ends(hidden_BTD, mask_BT)
    mask_BT1 = mask_BT[..., None]
    if self.kind == "max":
      lowest = jnp.finfo(hidden_BTD.dtype).min
      highest_BD = jnp.max(jnp.where(mask_BT1, hidden_BTD, lowest), axis=1)
      return jnp.where(mask_BT.any(axis=1)[:, None], highest_BD, 0)
    if self.kind == "mean":
      weights_BT = mask_BT.astype(jnp.float32)
      weights_BT /= jnp.maximum(weights_BT.sum(axis=1, keepdims=True), 1.0)
    else:
      weights_BT = self._attention(hidden_BTD, mask_BT)
    self.sow("intermediates", "pooling_weights", weights_BT)
    weights_BT = weights_BT.astype(hidden_BTD.dtype)
    return jnp.einsum("BT,BTD->BD", weights_BT, hidden_BTD)

  def _ends(self, hidden_BTD: Array, mask_BT: Array) -> Array:
    first_BD = hidden_BTD[:, 0]
    if self.kind == "first":
      return first_BD
    last_B = jnp.maximum(jnp.sum(mask_BT, axis=1) - 1, 0)
    last_B1D = jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)
    backward = jnp.arange(hidden_BTD.shape[-1]) >= (
      hidden_BTD.shape[-1] - self.backward_width
    )
    return jnp.where(backward, first_BD, last_B1D[:, 0])

  def _attention(self, hidden_BTD: Array, mask_BT: Array) -> Array:
    width = hidden_BTD.shape[-1]
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    inner_BTD = jnp.tanh(nn.Dense(width, name="inner", **dtypes)(hidden_BTD))
    score_BT1 = nn.Dense(1, use_bias=False, name="score", **dtypes)(inner_BTD)
    score_BT = score_BT1[..., 0].astype(jnp.float32)
    weights_BT = jax.nn.softmax(jnp.where(mask_BT, score_BT, -1e30), axis=-1)
    return jnp.where(mask_BT, weights_BT, 0.0)
