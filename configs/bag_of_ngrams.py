# SPDX-License-Identifier: Apache-2.0
"""Opinions on films by the mean of vectors of words and n-grams (fastText).

Joulin et al. 2016 (arXiv:1607.01759). Data: as of configs/bilstm_classifier.py.

python train.py --config=configs/bag_of_ngrams.py:FOLDER --workdir=runs/a
python scripts/evaluate.py --workdir=runs/a --split=test

Test accuracy 79.2 %, the mean of seeds 0, 1 and 2 (78.5 to 79.9 %); twenty
seconds on one CPU core.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults
from lmjax.config.files import load_neighbor

read_opinions = load_neighbor(__file__, "bilstm_classifier.py").read_opinions


def get_config(folder: str = "") -> ConfigDict:
  """Return the experiment.

  Args:
    folder: holds the sentences; empty for docstrings.
  """
  config = defaults.get_config(model="bag_of_ngrams")
  config.model.width = 32
  config.model.embedding_scale = 32**-0.5
  config.model.embedding_dropout = 0.3
  config.classification.pooling = "mean"
  config.classification.dropout = 0.3
  config.data.seq_len = 64
  config.data.num_buckets = 2
  config.optim.learning_rate = 1e-2
  config.optim.ema_decay = 0.98
  config.train.num_steps = 450
  config.train.eval_every = 50
  config.train.preview_every = 450
  return read_opinions(config, folder)
