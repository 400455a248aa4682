# SPDX-License-Identifier: Apache-2.0
"""A word 5-gram with modified Kneser–Ney smoothing (Chen & Goodman 1999).

Counted in one pass before its only step, which learns nothing: it records the
loss of one batch, and then the model is evaluated, stored and sampled like any
other. Contexts run across windows, for the order of the data is stateful.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="ngram")
  config.data.tokenizer = "word"
  config.data.order = "stateful"
  config.data.batch_size = 8
  config.data.seq_len = 512
  config.train.num_steps = 1
  return config
