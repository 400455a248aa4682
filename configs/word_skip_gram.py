# SPDX-License-Identifier: Apache-2.0
"""Skip-gram vectors of the words in Python's own manual.

Mikolov et al. 2013 (arXiv:1310.4546). The text is small, 112,000 words, marks
and line ends, and is gone through 73 times, in less than half a minute on two
CPU cores. Look at the vectors with

    python scripts/embed.py --workdir=runs/a --nearest="list method exception"
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="word_vectors")
  config.task = "skip_gram"
  config.data.tokenizer = "word_punctuation"
  config.data.lower_case = True
  config.data.min_freq = 5
  config.data.seq_len = 128
  config.data.batch_size = 64
  config.word_vectors.subsample = 3e-4
  config.optim.name, config.optim.weight_decay = "adagrad", 0.0
  config.optim.learning_rate = 0.1
  config.optim.clip_norm = 0.0
  config.train.num_steps = 1000
  config.train.eval_every = 250
  config.preview.prompt = (
    "list function class method string exception value attribute module loop"
  )
  config.preview.num_tokens = 6
  return config
