# SPDX-License-Identifier: Apache-2.0
"""A character xLSTM[7:1] within the budget of configs/char_transformer.py.

As many tokens (1,536,000) in the same batches, and fewer parameters than there
(804 k): 7 mLSTM blocks of width 116 and, in the second place, one sLSTM block.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="xlstm")
  config.model.blocks = "msmmmmmm"
  config.model.num_layers = 8
  config.model.width = 116
  config.data.seq_len = 64
  config.data.batch_size = 12
  config.optim.learning_rate = 3e-3
  config.train.num_steps = 2000
  return config
