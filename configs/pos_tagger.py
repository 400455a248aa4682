# SPDX-License-Identifier: Apache-2.0
"""Parts of speech by a BiLSTM over words and their characters."""

from ml_collections import ConfigDict

from configs import base


def get_config(folder: str = "") -> ConfigDict:
  """Return the experiment.

  Args:
    folder: a treebank of Universal Dependencies; empty for tokens of Python.
  """
  config = base.get_config(model="recurrent_encoder", task="tagging")
  if folder:
    config.data.source = "conllu"
    config.data.path = folder
    config.data.split_by = "name"
    config.data.columns = dict(tokens="form", tags="upos")
  config.model.width = 200
  config.model.embedding_width = 100
  config.model.dropout = 0.3
  config.model.locked_dropout = 0.0
  config.data.min_freq = 2
  config.data.lower_case = True
  config.optim.learning_rate = 2e-3
  config.optim.weight_decay = 0.0
  config.train.num_steps = 2000
  config.train.eval_every = 1000
  return config
