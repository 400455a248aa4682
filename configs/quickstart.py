# SPDX-License-Identifier: Apache-2.0
"""The run of scripts/quickstart.sh: two minutes on two CPU cores."""

from ml_collections import ConfigDict

from configs import char_lstm


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = char_lstm.get_config()
  config.train.num_steps = 2000
  return config
