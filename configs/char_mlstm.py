# SPDX-License-Identifier: Apache-2.0
"""A character xLSTM[1:0] within the budget of configs/char_transformer.py.

As many tokens (1,536,000) in the same batches, and fewer parameters (727 k of
804 k): 3 mLSTM blocks of width 192, whose 4 heads have a memory of 96 by 96
numbers each. `--config.model.blocks=s` makes them sLSTM blocks.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="xlstm")
  config.model.blocks = "m"
  config.model.num_layers = 3
  config.model.width = 192
  config.data.seq_len = 64
  config.data.batch_size = 12
  config.optim.learning_rate = 3e-3
  config.train.num_steps = 2000
  return config
