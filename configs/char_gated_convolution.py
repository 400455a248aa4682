# SPDX-License-Identifier: Apache-2.0
"""Gated convolutions within the budget of configs/char_transformer.py.

As many tokens (1,536,000) in the same batches, and no more parameters (806 k
to 804 k): 6 gated convolutions over 4 tokens, of width 128, that see the last
19 tokens together.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="gated_convolution")
  config.model.num_layers = 6
  config.model.width = 128
  config.data.seq_len = 64
  config.data.batch_size = 12
  config.optim.learning_rate = 1e-2
  config.train.num_steps = 2000
  return config
