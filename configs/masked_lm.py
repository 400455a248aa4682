# SPDX-License-Identifier: Apache-2.0
"""A masked language model (Devlin et al. 2019) on Python's own manual.

python scripts/fill.py --workdir=runs/a --text='the ___ of the list'
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="encoder")
  config.model.num_layers = 3
  config.model.dropout = 0.1
  config.data.tokenizer = "word_punctuation"
  config.data.vocab_size = 4000
  config.data.lower_case = True
  config.data.seq_len = 64
  config.data.batch_size = 32
  config.optim.learning_rate = 2e-3
  config.optim.weight_decay = 0.05
  config.train.num_steps = 3000
  config.preview.prompt = "the ___ of the list is ___ ."
  return config
