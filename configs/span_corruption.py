# SPDX-License-Identifier: Apache-2.0
"""A small T5 (Raffel et al. 2020) on Python's own manual.

python scripts/fill.py --workdir=runs/a --text='Return the ___ of ___.'
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="encoder_decoder")
  config.model.num_layers = 2
  config.data.tokenizer = "bpe"
  config.data.vocab_size = 2000
  config.data.seq_len = 64
  config.data.batch_size = 32
  config.optim.learning_rate = 2e-3
  config.train.num_steps = 3000
  config.preview.prompt = "Return the ___ of the ___.\n"
  return config
