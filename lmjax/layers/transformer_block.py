# SPDX-License-Identifier: Apache-2.0
"""The residual block of Transformers."""

import functools

import flax.linen as nn

from lmjax.layers.dropout import Dropout
from lmjax.ops.attention_range import AttentionRange
from lmjax.types import Array, PyTree

NORM_POSITIONS = ("pre", "post")


class Block(nn.Module):
  """Self-attention, optional cross-attention and feed-forward layer.

  Each has a norm and a residual connection:

      pre:   x + layer(norm(x))
      post:  norm(x + layer(x))

  Attributes:
    attention: constructor of the self-attention, given a name.
    feed_forward: constructor of the feed-forward layer, given a name.
    norm: constructor of a normalization, given a name.
    dropout: dropout rate of layer outputs, before they are added.
    norm_position: "pre" (GPT-2; Radford et al. 2019) or "post" (Vaswani et al.
      2017, arXiv:1706.03762).
    cross_attention: constructor of the cross-attention, given a name; None for
      none.
  """

  attention: functools.partial
  feed_forward: functools.partial
  norm: functools.partial
  dropout: float
  norm_position: str = "pre"
  cross_attention: functools.partial | None = None

  @nn.compact
  def __call__(
    self,
    x_BTD: Array,
    cache_and_memory: tuple[PyTree, PyTree],
    attention_context: PyTree,
    memory_range: AttentionRange | None = None,
  ) -> tuple[Array, PyTree]:
    """Transform [B, T, D].

    Args:
      x_BTD: residual stream.
      cache_and_memory: the cache of the self-attention, and the keys and values
        that the cross-attention attends to; None where there is none. They are
        one argument because a scan over layers slices both.
      attention_context: positions, mask and cache slots of all layers.
      memory_range: visible positions of the memory, for all layers.

    Returns:
      The residual stream, and the updated cache or None.
    """
    cache, memory = cache_and_memory
    is_pre_norm = self.norm_position == "pre"

    def pre_norm(name: str) -> Array:
      return self.norm(name=f"{name}_norm")(x_BTD) if is_pre_norm else x_BTD

    def add_residual(new_BTD: Array, name: str) -> Array:
      sum_BTD = x_BTD + Dropout(self.dropout)(new_BTD)
      return sum_BTD if is_pre_norm else self.norm(name=f"{name}_norm")(sum_BTD)

    layer = self.attention(name="attention")
    new_BTD, cache = layer(pre_norm("attention"), attention_context, cache)
    x_BTD = add_residual(new_BTD, "attention")
    if self.cross_attention is not None:
      layer = self.cross_attention(name="cross_attention")
      new_BTD = layer(pre_norm("cross_attention"), memory, memory_range)
      x_BTD = add_residual(new_BTD, "cross_attention")
    layer = self.feed_forward(name="feed_forward")
    x_BTD = add_residual(layer(pre_norm("feed_forward")), "feed_forward")
    return x_BTD, cache
