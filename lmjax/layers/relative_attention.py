# SPDX-License-Identifier: Apache-2.0
"""Attention over a segment and the inputs of those before (Transformer-XL).

Dimension letters:

    M  positions of the memory: cached inputs of earlier segments
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.layers.attention import Attention
from lmjax.layers.dense import apply_affine
from lmjax.ops.attention_range import AttentionRange
from lmjax.ops.relative_attention import relative_attention
from lmjax.types import Array


class SegmentContext(NamedTuple):
  """What every layer may look at.

  Attributes:
    attention_range: what each token sees of memory and segment.
    waves_SD: sinusoids of the distances S - 1, ..., 0.
  """

  attention_range: AttentionRange
  waves_SD: Array


class RelativeAttention(Attention):
  """Attention by contents and distances (Dai et al. 2019, arXiv:1901.02860).

  Its memory is what came in before: keys and values are made of it by the
  kernels of today, and no gradient flows into it.
  """

  @nn.compact
  def __call__(
    self,
    x_BTD: Array,
    attention_context: SegmentContext,
    memory_BMD: Array | None,
  ) -> tuple[Array, Array | None]:
    """Attend from every position.

    Args:
      x_BTD: inputs.
      attention_context: attention ranges and distances.
      memory_BMD: the newest inputs of earlier segments, or None.

    Returns:
      The output, [B, T, D], and the newest M inputs by now; None if there was
      no memory.
    """
    width, heads = x_BTD.shape[-1], self.num_heads
    x_BTD = x_BTD.astype(self.dtype)
    seen_BSD, newest_BMD = x_BTD, None
    if memory_BMD is not None:
      memory_BMD = jax.lax.stop_gradient(memory_BMD)
      seen_BSD = jnp.concatenate([memory_BMD, x_BTD], axis=1)
      newest_BMD = seen_BSD[:, -memory_BMD.shape[1] :]
    query = [self.projection(width, heads, "query")]
    keys = [self.projection(width, heads, name) for name in ("key", "value")]
    distance = [self.projection(width, heads, "distance")]
    (query_BTHK,) = apply_affine(x_BTD, query, 1, self.dtype)
    key_BSHK, value_BSHK = apply_affine(seen_BSD, keys, 1, self.dtype)
    (distance_SHK,) = apply_affine(
      attention_context.waves_SD, distance, 1, self.dtype
    )
    biases = [
      self.param(
        name,
        nn.initializers.normal(self.init_scale),
        (heads, width // heads),
        self.param_dtype,
      ).astype(self.dtype)
      for name in ("content_bias", "distance_bias")
    ]
    attended_BTHK, weights_BHTS = relative_attention(
      self.normalize_heads(query_BTHK, "query_norm"),
      self.normalize_heads(key_BSHK, "key_norm"),
      value_BSHK,
      distance_SHK,
      *biases,
      attention_context.attention_range,
    )
    if self.sows_weights():
      self.sow("intermediates", "weights", weights_BHTS)
    return self.output(attended_BTHK), newest_BMD
