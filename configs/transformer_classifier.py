# SPDX-License-Identifier: Apache-2.0
"""Kinds of questions by a Transformer encoder trained from scratch.

Data: as of configs/text_cnn.py.

python train.py --config=configs/transformer_classifier.py:FOLDER \
    --workdir=runs/a
python scripts/evaluate.py --workdir=runs/a --split=test
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config(folder: str = "") -> ConfigDict:
  """Return the experiment.

  Args:
    folder: holds the questions; empty for docstrings.
  """
  config = defaults.get_config(model="encoder", task="classification")
  config.model.num_layers = 2
  config.model.dropout = 0.2
  config.classification.pooling = "mean"
  config.data.batch_size = 50
  config.data.num_buckets = 2
  config.data.lower_case = True
  config.train.num_steps = 800
  config.train.eval_every = 100
  config.train.preview_every = 400
  config.checkpoint.metric = "accuracy"
  if folder:
    config.data.source = "tsv"
    config.data.path = folder
    config.data.split_by = "name"
    config.data.columns.label = "0"
    config.data.columns.text = "2"
    config.data.tokenizer = "word"
  return config
