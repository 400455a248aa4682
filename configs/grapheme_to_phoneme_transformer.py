# SPDX-License-Identifier: Apache-2.0
"""Spelling to pronunciation by a Transformer: CMUdict.

Data and commands are those of grapheme_to_phoneme.py; the model is as small as
those of Yolchuyeva et al. 2019 (arXiv:2004.06338). Test, with stress marks and
--config.model.dtype=bfloat16: phoneme error rate 9.93 %, 62.9 % of words right;
38 minutes of CPU time.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults
from lmjax.config.files import load_neighbor

read_dictionary = load_neighbor(
  __file__, "grapheme_to_phoneme.py"
).read_dictionary


def get_config(folder: str = "") -> ConfigDict:
  """Return the experiment; `folder` holds the dataset."""
  config = defaults.get_config(model="encoder_decoder", task="seq2seq")
  config.model.num_layers = 3
  config.model.width = 128
  config.model.num_heads = 4
  config.model.dropout = 0.1
  config.loss.label_smoothing = 0.1
  config.optim.learning_rate = 2e-3
  config.train.num_steps = 12_000
  return read_dictionary(config, folder)
