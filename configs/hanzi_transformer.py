# SPDX-License-Identifier: Apache-2.0
"""A Transformer for Chinese text by character.

As many tokens and about as many parameters as configs/hanzi_lstm.py has.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="transformer")
  config.model.num_layers = 3
  config.model.width = 256
  config.model.num_heads = 4
  config.model.dropout = 0.1
  config.model.dtype = "bfloat16"
  config.data.seq_len = 128
  config.data.batch_size = 8
  config.optim.learning_rate = 2e-3
  config.optim.warmup_steps = 400
  config.optim.final_fraction = 0.02
  config.train.num_steps = 6000
  config.train.eval_every = 1000
  config.train.preview_every = 3000
  config.preview.prompt = ""  # start a document
  return config
