# SPDX-License-Identifier: Apache-2.0
"""English to German by a small Transformer: Multi30k.

Elliott et al. 2016 (arXiv:1605.00459); one vocabulary of byte pairs and one
table for both languages, label smoothing, beams of five. Without an argument it
learns to read number words. With a folder it reads `train.en`, `train.de`,
`val.en`, ..., plain or compressed.

python train.py --config=configs/translation.py:FOLDER --workdir=runs/a
python scripts/evaluate.py --workdir=runs/a --split=test

Test 2016 of the tokenized texts: BLEU 37.9 (sacrebleu 2.6.0, 13a, of tokens),
chrF 62.3; valid 38.0. Training is 91 minutes of CPU time, evaluations included,
on a busy machine of two cores with AMX.

For other languages: --config.data.columns.source=de
--config.data.columns.target=en.
"""

from ml_collections import ConfigDict

from lmjax.config import defaults


def get_config(folder: str = "") -> ConfigDict:
  """Return the experiment; `folder` holds the dataset."""
  config = defaults.get_config(model="encoder_decoder", task="seq2seq")
  config.model.num_layers = 3
  config.model.width = 256
  config.model.num_heads = 4
  config.model.feed_forward_width = 512
  config.model.dropout = 0.3
  config.model.dtype = "bfloat16"
  config.loss.label_smoothing = 0.1
  config.seq2seq.metrics = "bleu,chrf"
  config.seq2seq.beam_size = 5
  config.seq2seq.length_penalty = 1.0
  config.data.tokenizer = "bpe"
  config.data.vocab_size = 6000
  config.data.batch_size = 128
  config.data.seq_len = 64
  config.optim.learning_rate = 2e-3
  config.optim.b2 = 0.98
  config.optim.weight_decay = 0.01
  config.optim.warmup_steps = 500
  config.optim.final_fraction = 0.02
  config.train.num_steps = 4500
  config.train.eval_every = 750
  config.train.preview_every = 1500
  if folder:
    config.data.source = "parallel"
    config.data.path = folder
    config.data.columns = dict(source="en", target="de")
    config.data.split_by = "name"
  return config
