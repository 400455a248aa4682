# SPDX-License-Identifier: Apache-2.0
"""Opinions on films by convolutions (Kim 2014), with random vectors.

Data: as of configs/bilstm_classifier.py, sentences alone, where Kim learns from
phrases too.

python train.py --config=configs/sentiment_cnn.py:FOLDER --workdir=runs/a
python scripts/evaluate.py --workdir=runs/a --split=test

Test accuracy 81.3 %, the mean of seeds 0, 1 and 2 (81.1 to 81.5 %); twenty
seconds on a CPU core.
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
  config = defaults.get_config(model="text_cnn")
  config.model.width = 64
  config.data.seq_len = 40
  config.data.num_buckets = 1
  config.optim.learning_rate = 2e-3
  config.optim.ema_decay = 0.98
  config.train.num_steps = 400
  config.train.eval_every = 50
  config.train.preview_every = 400
  return read_opinions(config, folder)
