# SPDX-License-Identifier: Apache-2.0
"""A siamese LSTM that says how alike two sentences are, from 1 to 5.

Both are read by the same layers, from random vectors on, and compared feature
by feature; what is learned is the distribution over whole scores (Tai et al.
2015, arXiv:1503.00075). It takes the folder of SICK (Marelli et al. 2014):

    python train.py --config=configs/text_similarity.py:FOLDER --workdir=runs/a
    python scripts/evaluate.py --workdir=runs/a --split=test

Pearson's correlation on test is 0.811, the mean of seeds 0, 1 and 2 (0.808 to
0.813), Spearman's 0.767; one to three minutes on a core of a busy machine.

Without one there are no scores, and it learns which sentence goes with which
function of Python's library, from the other pairs of a batch.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config(folder: str = "") -> ConfigDict:
  """Return the experiment."""
  config = defaults.get_config(model="recurrent_encoder", task="matching")
  config.matching.encoders = "shared"
  config.data.lower_case = True
  config.data.seq_len = 64
  config.optim.weight_decay = 0.01
  if folder:
    config.data.source, config.data.path = "tsv", folder
    config.data.split_by, config.data.header = "name", True
    config.data.columns.first = "sentence_A"
    config.data.columns.second = "sentence_B"
    config.data.columns.label = "relatedness_score"
    config.matching.loss = "distribution"
    config.matching.comparison = "features"
    # Vectors of a size that training hardly changes: what the sentences share
    # is seen from the first step on, and few words are learned by heart.
    config.model.embedding_width, config.model.embedding_scale = 300, 1.0
    config.model.dropout = 0.2
    config.optim.learning_rate = 3e-3
    config.train.num_steps = 700
    config.train.eval_every = 100
  else:
    config.data.batch_size = 64
    config.train.num_steps = 300
  return config
