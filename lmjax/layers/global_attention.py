# SPDX-License-Identifier: Apache-2.0
"""Attention of a recurrent decoder to all that its encoder read."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.layers.dense import Dense
from lmjax.types import Array

KINDS = ("additive", "general", "dot", "scaled_dot")


class GlobalAttention(nn.Module):
  """Weigh the places of a source by how they score with a query.

  Attributes:
    kind: "additive" scores v · tanh(W q + U k) (Bahdanau et al. 2015,
      arXiv:1409.0473); "general" q · W k, and "dot" q · k (Luong et al. 2015,
      arXiv:1508.04025); "scaled_dot" divides that by √D (Vaswani et al. 2017).
      Those without a W need queries and keys of one width.
    width: width D of the queries, and of what is inside of "additive".
    dtype: dtype of the maps; scores, softmax and averages are computed in
      float32.
    param_dtype: dtype of the parameters.
  """

  kind: str
  width: int
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Create the maps."""
    settings = dict(
      initializer="glorot_uniform",
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    if self.kind in ("additive", "general"):
      self.key = Dense((self.width,), **settings)
    if self.kind == "additive":
      self.query = Dense((self.width,), use_bias=True, **settings)
      self.score = Dense((1,), **settings)

  def keys(self, memory_BSE: Array) -> Array:
    """Make what queries are compared with, once a source: [B, S, D]."""
    if self.kind in ("additive", "general"):
      return self.key(memory_BSE)
    return memory_BSE

  def __call__(
    self,
    query_BTD: Array,
    keys_BSD: Array,
    memory_BSE: Array,
    mask_BS: Array,
  ) -> tuple[Array, Array]:
    """Attend from every query.

    Args:
      query_BTD: queries.
      keys_BSD: what `keys` made of the memory.
      memory_BSE: what is averaged.
      mask_BS: false on padding, whose weights are exactly 0.

    Returns:
      The averages, [B, T, E], and the weights, float32 [B, T, S].
    """
    if self.kind == "additive":
      query_BTD = self.query(query_BTD)
      inner_BTSD = jnp.tanh(query_BTD[:, :, None] + keys_BSD[:, None])
      scores_BTS = self.score(inner_BTSD)[..., 0].astype(jnp.float32)
    else:
      query_BTD, keys_BSD = (
        x.astype(jnp.float32) for x in (query_BTD, keys_BSD)
      )
      scores_BTS = jnp.einsum("BTD,BSD->BTS", query_BTD, keys_BSD)
    if self.kind == "scaled_dot":
      scores_BTS *= self.width**-0.5
    mask_B1S = mask_BS[:, None]
    weights_BTS = jax.nn.softmax(jnp.where(mask_B1S, scores_BTS, -1e30))
    weights_BTS = jnp.where(mask_B1S, weights_BTS, 0.0)
    average_BTE = jnp.einsum(
      "BTS,BSE->BTE", weights_BTS, memory_BSE.astype(jnp.float32)
    )
    return average_BTE.astype(memory_BSE.dtype), weights_BTS
