# SPDX-License-Identifier: Apache-2.0
"""Facts to sentences by an LSTM that copies: the E2E challenge.

Novikova et al. 2017 (arXiv:1706.09254); the model is the pointer–generator of
See et al. 2017 (arXiv:1704.04368). Without an argument it learns to read number
words. With the folder of the dataset it reads `train.tsv.gz`, `valid.tsv` and
`test.tsv`, of columns facts and sentence. Rows with the same facts are
references of one another, in BLEU and chrF too.

Test: BLEU 68.3 with all references (sacrebleu 2.6.0, 13a, of tokens), chrF
74.0, ROUGE-L 0.70.

python train.py --config=configs/data_to_text.py:FOLDER --workdir=runs/a
python scripts/evaluate.py --workdir=runs/a --split=test
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config(folder: str = "") -> ConfigDict:
  """Return the experiment; `folder` holds the dataset."""
  config = defaults.get_config(model="recurrent_seq2seq")
  config.model.width = 256
  config.model.embedding_width = 128
  config.model.attention = "general"
  config.model.copy_mechanism = True
  config.model.dropout = 0.3
  config.seq2seq.metrics = "bleu,chrf,rouge"
  config.seq2seq.beam_size = 5
  config.seq2seq.length_penalty = 1.0
  config.data.tokenizer = "word"
  config.data.min_freq = 2
  config.data.batch_size = 32
  config.data.seq_len = 96
  config.optim.learning_rate = 2e-3
  config.optim.weight_decay = 0.0
  config.train.num_steps = 8000
  config.train.eval_every = 2000
  config.train.preview_every = 4000
  if folder:
    config.data.source = "tsv"
    config.data.path = folder
    config.data.columns = dict(source="0", target="1")
    config.data.split_by = "name"
    config.data.train_files = "train*"
    config.data.valid_files = "valid*"
    config.data.test_files = "test.tsv"
  return config
