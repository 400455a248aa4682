# SPDX-License-Identifier: Apache-2.0
"""Named entities by a BiLSTM-CRF over words and their characters.

Huang et al. 2015 (arXiv:1508.01991) with a convolution over the characters, as
Ma & Hovy 2016 (arXiv:1603.01354) have it; tags are read in BIO and learned in
BIOES (Ratinov & Roth 2009). F1 is of whole entities, as seqeval counts them.

python train.py --config=configs/named_entities.py:FOLDER --workdir=runs/names
python scripts/evaluate.py --workdir=runs/names --split=test

FOLDER holds train, valid and test files in CoNLL; 3,000 steps go through WNUT
2017 28 times. Without it the entities are dotted names of Python.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config(folder: str = "") -> ConfigDict:
  """Return the experiment.

  Args:
    folder: files of CoNLL with a word and its tag a line; empty for the dotted
      names in lines of Python.
  """
  config = defaults.get_config(model="recurrent_encoder", task="tagging")
  config.data.columns = dict(tokens="token", tags="chunk")
  if folder:
    config.data.source = "conll"
    config.data.path = folder
    config.data.split_by = "name"
    config.data.columns = dict(tokens="0", tags="1")
  config.tagging.scheme = "bioes"
  config.tagging.crf = True
  config.tagging.dropout = 0.5
  config.model.width = 100
  config.model.embedding_width = 100
  config.model.dropout = 0.5
  config.data.min_freq = 2
  config.data.lower_case = True
  config.optim.learning_rate = 2e-3
  config.optim.weight_decay = 0.0
  config.train.num_steps = 3000
  config.train.eval_every = 500
  config.checkpoint.metric = "entity_f1"
  return config
