# SPDX-License-Identifier: Apache-2.0
"""A character minGRU within the budget of configs/char_transformer.py.

As many tokens (1,536,000) in the same batches, and no more parameters (803 k
of 804 k): 3 blocks of width 128, each a convolution over 4 tokens, 344 states
without a matmul between them, and a feed-forward layer.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="min_gru")
  config.model.num_layers = 3
  config.model.width = 128
  config.model.recurrent_width = 344
  config.data.seq_len = 64
  config.data.batch_size = 12
  config.optim.learning_rate = 1e-2
  config.train.num_steps = 2000
  return config
