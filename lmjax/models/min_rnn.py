# SPDX-License-Identifier: Apache-2.0
"""The minGRU and minLSTM language models (Feng et al. 2024)."""

import functools

from ml_collections import ConfigDict

from lmjax.layers.min_rnn import MinRNN
from lmjax.models.residual_stack import (
  ResidualStack,
  build_stack,
  feed_forward,
  residual_scale,
)


def build(config: ConfigDict, vocab_size: int) -> ResidualStack:
  """Make the model that a config describes.

  A block is a recurrence and a feed-forward layer, each on the residual stream.

  Raises:
    UsageError: if a choice is not known.
  """
  model = config.model
  recurrent_width = model.recurrent_width or model.width
  recurrence = functools.partial(
    MinRNN,
    model.name,
    model.width,
    recurrent_width=recurrent_width,
    conv_size=model.conv_size,
    out_scale=residual_scale(model, recurrent_width),
  )
  block = (recurrence, *feed_forward(model))
  return build_stack(model, vocab_size, block * model.num_layers)
