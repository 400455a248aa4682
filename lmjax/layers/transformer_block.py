# SPDX-License-Identifier: Apache-2.0
"""The block that Transformers repeat."""

import functools

import flax.linen as nn

from lmjax.layers.dropout import Dropout
from lmjax.ops.attention_range import AttentionRange
from lmjax.types import Array, PyTree

NORM_POSITIONS = ("pre", "post")


class Block(nn.Module):
  """Attention and feed-forward, each with a norm and on a residual.

  Attributes:
    attention: makes the attention layer, given a name.
    feed_forward: makes the feed-forward layer, given a name.
    norm: makes a normalization, given a name.
    dropout: fraction of features dropped before each residual.
    norm_position: "pre", before each layer (Radford et al. 2019), or "post",
      after each residual (Vaswani et al. 2017).
    cross_attention: makes the attention to an encoder's output, given a name,
      between the other two; None for none.
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
    cached, memory = cache_and_memory
    first = self.norm_position == "pre"

    def enter(name: str) -> Array:
      return self.norm(name=f"{name}_norm")(x_BTD) if first else x_BTD

    def leave(new_BTD: Array, name: str) -> Array:
      added_BTD = x_BTD + Dropout(self.dropout)(new_BTD)
      return added_BTD if first else self.norm(name=f"{name}_norm")(added_BTD)

    layer = self.attention(name="attention")
    new_BTD, cached = layer(enter("attention"), attention_context, cached)
    x_BTD = leave(new_BTD, "attention")
    if self.cross_attention is not None:
      layer = self.cross_attention(name="cross_attention")
      new_BTD = layer(enter("cross_attention"), memory, memory_range)
      x_BTD = leave(new_BTD, "cross_attention")
    layer = self.feed_forward(name="feed_forward")
    x_BTD = leave(layer(enter("feed_forward")), "feed_forward")
    return x_BTD, cached
