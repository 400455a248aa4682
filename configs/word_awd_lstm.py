# SPDX-License-Identifier: Apache-2.0
"""A word-level AWD-LSTM (Merity et al. 2018, arXiv:1708.02182).

The paper's regularizers at its rates, its three layers with tied embeddings,
and NT-ASGD. Python's manual has 69 thousand words where the Penn Treebank has a
million, so layers are narrower than 1150 and 400 and the learning rate is 10
instead of 30. `scripts/evaluate.py --cache_size=500` adds the paper's neural
cache.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="lstm")
  config.model.num_layers = 3
  config.model.width = 320
  config.model.embedding_width = 160
  config.model.tie_embeddings = True
  config.model.embedding_dropout = 0.1
  config.model.input_dropout = 0.4
  config.model.hidden_dropout = 0.25
  config.model.output_dropout = 0.4
  config.model.weight_drop = 0.5
  config.model.activation_regularization = 2.0
  config.model.temporal_activation_regularization = 1.0
  config.data.tokenizer = "word"
  config.data.order = "stateful"
  config.data.seq_len = 35
  config.data.batch_size = 10
  config.optim.name, config.optim.weight_decay = "sgd", 0.0
  config.optim.momentum = 0.0
  config.optim.learning_rate = 10.0
  config.optim.schedule = "constant"
  config.optim.warmup_steps = 0
  config.optim.clip_norm = 0.25
  config.optim.nt_asgd_every = 197  # about an epoch
  config.train.num_steps = 2000
  config.train.eval_every = 500
  config.preview.prompt = "The "
  config.preview.num_tokens = 60
  return config
