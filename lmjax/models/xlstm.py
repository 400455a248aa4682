# SPDX-License-Identifier: Apache-2.0
"""xLSTM, a language model of mLSTM and sLSTM blocks.

Beck et al. 2024 (arXiv:2405.04517).
"""

import functools

from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.mlstm import MLSTMLayer
from lmjax.layers.norms import DEFAULT_EPSILON
from lmjax.layers.slstm import SLSTMLayer
from lmjax.models.residual_stack import (
  ResidualStack,
  build_stack,
  feed_forward,
  residual_scale,
)


def build(config: ConfigDict, vocab_size: int) -> ResidualStack:
  """Build the model of a config with model.name=xlstm.

  A block "m" is an mLSTM, which has its own up- and down-projection (figure 11
  of the paper); a block "s" is an sLSTM and a feed-forward layer (figure 10).
  The pattern model.blocks repeats over the layers: "mms" of 5 layers is mmsmm.

  Raises:
    UsageError: if the pattern is invalid or widths are not divisible by heads
      and blocks.
  """
  model = config.model
  inner_width = model.inner_width or 2 * model.width
  blocks = model.blocks
  if not blocks or set(blocks) - set("ms"):
    raise UsageError(
      f"model.blocks={blocks} is invalid: expected letters m (mLSTM) and s "
      "(sLSTM)."
    )
  heads, block = model.num_heads, model.block_width
  for key, value, divided, number in (
    ("num_heads", heads, "width", model.width),
    ("num_heads", heads, "inner_width", inner_width),
    ("block_width", block, "inner_width", inner_width),
  ):
    if value <= 0 or number % value:
      raise UsageError(
        f"model.{key}={value} must divide model.{divided}={number}."
      )
  norm_epsilon = model.norm_epsilon or DEFAULT_EPSILON
  mlstm = functools.partial(
    MLSTMLayer,
    model.width,
    inner_width=inner_width,
    num_heads=heads,
    block_width=block,
    conv_size=model.conv_size,
    out_scale=residual_scale(model, inner_width),
    norm_epsilon=norm_epsilon,
  )
  slstm_feed_forward = feed_forward(model, expansion=4 / 3)
  layers = []
  for index in range(model.num_layers):
    if blocks[index % len(blocks)] == "m":
      layers.append(mlstm)
      continue
    slstm = functools.partial(
      SLSTMLayer,
      model.width,
      num_heads=heads,
      conv_size=model.conv_size,
      # Relative depth, from 0 to 1; it sets the initial forget gates.
      depth=index / max(model.num_layers - 1, 1),
      norm_epsilon=norm_epsilon,
    )
    layers += [slstm, *slstm_feed_forward]
  return build_stack(model, vocab_size, tuple(layers))
