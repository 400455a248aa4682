# SPDX-License-Identifier: Apache-2.0
"""Hawk, a language model of real-gated linear recurrent units (RG-LRU).

De et al. 2024 (arXiv:2402.19427).
"""

import functools

from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.rg_lru import RecurrentBlock
from lmjax.models.residual_stack import (
  ResidualStack,
  build_stack,
  feed_forward,
  residual_scale,
)


def build(config: ConfigDict, vocab_size: int) -> ResidualStack:
  """Build the model of a config with model.name=rg_lru.

  A block is a recurrent block and a gated feed-forward layer, both residual.

  Raises:
    UsageError: if the recurrent width is not a multiple of the heads.
  """
  model = config.model
  heads = max(model.num_heads, 1)
  # 4/3 of the model width, as in the paper, rounded down to a multiple of the
  # heads.
  recurrent_width = (
    model.recurrent_width or 4 * model.width // 3 // heads * heads
  )
  if not model.num_heads or not recurrent_width or recurrent_width % heads:
    raise UsageError(
      f"model.num_heads={model.num_heads} must divide model.recurrent_width="
      f"{model.recurrent_width or 4 * model.width // 3}."
    )
  recurrence = functools.partial(
    RecurrentBlock,
    model.width,
    recurrent_width=recurrent_width,
    num_heads=heads,
    conv_size=model.conv_size,
    out_scale=residual_scale(model, recurrent_width),
  )
  block = (recurrence, *feed_forward(model, expansion=3, use_bias=True))
  return build_stack(model, vocab_size, block * model.num_layers)
