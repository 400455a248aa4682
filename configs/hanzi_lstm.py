# SPDX-License-Identifier: Apache-2.0
"""An LSTM for Chinese text by character.

A vocabulary of thousands, so the table of embeddings makes the logits too and
matmuls are in bfloat16. Without a path it learns Python's manual, as any
config; the README says what it reaches on Tang poems, whose memory is emptied
at each poem (data.reset_at_documents), and on a novel with a neural cache.
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
  config.model.dropout = 0.2
  config.model.dtype = "bfloat16"
  config.data.order = "stateful"
  config.data.seq_len = 32
  config.data.batch_size = 32
  config.optim.learning_rate = 3e-3
  config.optim.final_fraction = 0.02
  config.optim.weight_decay = 0.0
  config.train.num_steps = 6000
  config.train.eval_every = 1000
  config.train.preview_every = 3000
  config.preview.prompt = ""  # start a document
  return config
