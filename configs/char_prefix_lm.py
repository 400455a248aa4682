# SPDX-License-Identifier: Apache-2.0
"""A character Transformer that reads a prefix in both directions.

A prefix of random length is read as an encoder reads, the rest is predicted
token by token (Raffel et al. 2020, arXiv:1910.10683, 3.2).
"""

from ml_collections import ConfigDict

from lmjax.config.files import load_neighbor

char_transformer = load_neighbor(__file__, "char_transformer.py")


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = char_transformer.get_config()
  config.task = "prefix_lm"
  config.model.positions = "rotary"
  config.data.seq_len = 128
  config.preview.prompt = "The value of an object "
  return config
