# SPDX-License-Identifier: Apache-2.0
"""A character Transformer-XL of the size of configs/char_transformer.py.

Windows of 64 characters see the hidden states of the 128 before them.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="transformer_xl")
  config.model.norm = "layer_no_bias"
  config.model.memory_length = 128
  config.data.order = "stateful"
  config.data.seq_len = 64
  config.data.batch_size = 12
  config.optim.learning_rate = 3e-3
  config.train.num_steps = 2000
  return config
