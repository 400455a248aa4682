# SPDX-License-Identifier: Apache-2.0
"""The character Transformer with eight experts in place of each feed-forward.

Each token visits two, of half the width, so it meets as many weights as in
configs/char_transformer.py, of four times as many. Compare perplexities: the
loss has the router's losses in it.
"""

from ml_collections import ConfigDict

from lmjax.config.files import load_neighbor

char_transformer = load_neighbor(__file__, "char_transformer.py")


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = char_transformer.get_config()
  config.model.feed_forward_width = 256
  config.model.num_experts = 8
  config.model.experts_per_token = 2
  return config
