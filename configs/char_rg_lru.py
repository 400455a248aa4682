# SPDX-License-Identifier: Apache-2.0
"""A character Hawk within the budget of configs/char_transformer.py.

As many tokens (1,536,000) in the same batches, and no more parameters (794 k
of 804 k): 4 blocks of width 120, each 160 real-gated linear recurrent units
after a convolution over 4 tokens, and a gated feed-forward layer.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="rg_lru")
  config.model.num_layers = 4
  config.model.width = 120
  config.model.num_heads = 8
  config.data.seq_len = 64
  config.data.batch_size = 12
  config.optim.learning_rate = 3e-3
  config.train.num_steps = 2000
  return config
