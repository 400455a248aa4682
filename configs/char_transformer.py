# SPDX-License-Identifier: Apache-2.0
"""A character Transformer, as small as nanoGPT's CPU setting."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = base.get_config(model="transformer")
  config.model.num_layers = 4
  config.model.num_heads = 4
  config.model.width = 128
  config.model.norm = "layer_no_bias"
  config.model.positions = "learned"
  config.data.window = 64
  config.data.batch_size = 12
  config.optim.learning_rate = 1e-3
  config.optim.warmup_steps = 100
  config.optim.b2 = 0.99
  config.optim.weight_decay = 0.1
  config.train.num_steps = 2000
  return config
