# SPDX-License-Identifier: Apache-2.0
"""The run of scripts/quickstart.sh: a character LSTM on Python's own manual.

On two CPU cores it takes about a minute and a half.
"""

from ml_collections import ConfigDict

from lmjax.config.files import load_neighbor

char_lstm = load_neighbor(__file__, "char_lstm.py")


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = char_lstm.get_config()
  config.train.eval_every = config.train.checkpoint_every = 1000
  return config
