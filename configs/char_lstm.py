# SPDX-License-Identifier: Apache-2.0
"""A character LSTM, trained statefully."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = base.get_config(model="lstm")
  config.model.num_layers = 1
  config.model.width = 384
  config.model.embedding_width = 64
  config.data.order = "stateful"
  config.data.window = 64
  config.data.batch_size = 12
  config.optim.learning_rate = 3e-3
  config.optim.weight_decay = 0.0
  config.train.num_steps = 2000
  return config
