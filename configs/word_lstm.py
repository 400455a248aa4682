# SPDX-License-Identifier: Apache-2.0
"""A word LSTM for a corpus of two million words, such as WikiText-2.

Two layers, the upper one as wide as the embeddings, whose table makes the
logits (Inan et al. 2017, arXiv:1611.01462); matmuls in bfloat16, for the table
is most of the work. 8,000 steps go through WikiText-2 4.3 times. The README has
what it reaches there, alone and mixed with an n-gram model.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config() -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="lstm")
  config.model.num_layers = 2
  config.model.width = 512
  config.model.embedding_width = 256
  config.model.tie_embeddings = True
  config.model.dropout = 0.3
  config.model.dtype = "bfloat16"
  config.data.tokenizer = "word"
  config.data.order = "stateful"
  config.data.seq_len = 35
  config.data.batch_size = 32
  config.optim.learning_rate = 3e-3
  config.optim.warmup_steps = 200
  config.optim.final_fraction = 0.02
  config.optim.weight_decay = 0.0
  config.train.num_steps = 8000
  config.train.eval_every = 2000
  config.train.preview_every = 4000
  config.preview.prompt = "The "
  config.preview.num_tokens = 60
  return config
