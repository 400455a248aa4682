# SPDX-License-Identifier: Apache-2.0
"""Skip-gram word vectors of Python's own manual."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = base.get_config(model="word_vectors")
  config.task = "skip_gram"
  config.data.tokenizer = "word"
  config.data.lower_case = True
  config.data.min_freq = 5
  config.data.window = 128
  config.data.batch_size = 64
  config.optim.name = "adagrad"
  config.optim.learning_rate = 0.1
  config.optim.clip_norm = 0.0
  config.train.num_steps = 2000
  config.train.eval_every = 500
  config.sample.prompt = "list function class method value string exception the"
  config.sample.num_tokens = 8
  return config
