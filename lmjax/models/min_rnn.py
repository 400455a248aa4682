# SPDX-License-Identifier: Apache-2.0
"""The minGRU and minLSTM language models.

Recurrences whose gates depend on the inputs only, so that training computes all
time steps with a parallel scan (Feng et al. 2024, arXiv:2410.01201).
"""

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
  """Build the model of a config with model.name=min_gru or min_lstm.

  A block is a recurrence and a feed-forward layer, both residual.
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
