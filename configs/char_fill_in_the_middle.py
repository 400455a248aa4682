# SPDX-License-Identifier: Apache-2.0
"""A character Transformer that fills in the middle of a text.

Half of the rows are rewritten as Bavarian et al. 2022 (arXiv:2207.14255) do;
the other half are ordinary language modeling, so the model also continues a
text as well:

    python scripts/fill.py --workdir=runs/a --text='if x ___ y:'
    python scripts/sample.py --workdir=runs/a --prompt='if x '
"""

from ml_collections import ConfigDict

from lmjax.config.files import load_neighbor

char_transformer = load_neighbor(__file__, "char_transformer.py")


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = char_transformer.get_config()
  config.task = "fill_in_the_middle"
  config.model.positions = "rotary"
  config.data.seq_len = 128
  config.train.num_steps = 3000
  config.preview.prompt = "The ___ of an object is its type.\n"
  return config
