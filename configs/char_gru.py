# SPDX-License-Identifier: Apache-2.0
"""A character GRU within the budget of configs/char_lstm.py.

As many tokens and as many weights in its one layer (735 k of 742 k), so the
cells can be compared.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="gru")
  config.model.num_layers = 1
  config.model.width = 464
  config.model.embedding_width = 64
  config.data.order = "stateful"
  config.data.seq_len = 16
  config.data.batch_size = 32
  config.optim.learning_rate = 3e-3
  config.optim.final_fraction = 0.01
  config.optim.weight_decay = 0.0
  config.train.num_steps = 3000
  return config
