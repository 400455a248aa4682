# SPDX-License-Identifier: Apache-2.0
"""Whole networks by name; to add one, write its file and a line here.

Every autoregressive model keeps one contract (language_model.py):

    carry = model.initial_carry(batch_size, capacity)
    hidden, carry = model.apply(variables, tokens_BT, carry, resets_BT)
    logits_BTV = model.apply(variables, hidden, method="logits")
    sums = model.apply(variables, hidden, targets_BT, weights_BT,
                       method="cross_entropy")

Every leaf of a carry has its batch axis first. `carry=None` is an empty carry
whose updated value is not needed. `model.max_context` is the maximum number of
tokens that a carry holds; None means no limit. Leaves of `hidden` begin with the axes
batch and time; most models have one, hidden_BTD, whose logits are a table times
it plus a bias. `model.choices(with_resets)` names what each "auto" stands for.
`model.for_decoding(variables, batch_size)` returns a model and variables that
compute the same, laid out for one token at a time. `model.rewind(carry,
num_tokens)` makes of a full carry one behind which its newest tokens are read
again. `model.estimate(tokens, starts, names)` makes the variables that are
counted in the training text. Of what a model that reads sources sows,
`model.attended(sown)` is how much tokens attended to each place of them, None
if it has no attention.

Encoders of texts keep the contract of text_encoder.py.
"""

import flax.linen as nn
from ml_collections import ConfigDict

from lmjax.models import (
  bag_of_ngrams,
  encoder,
  encoder_decoder,
  gated_convolution,
  min_rnn,
  ngram,
  recurrent,
  recurrent_encoder,
  recurrent_seq2seq,
  rg_lru,
  text_cnn,
  transformer,
  transformer_xl,
  word_vectors,
  xlstm,
)
from lmjax.models.heads import tagger, text_classifier, text_matcher

# Name → builder: (config, vocab_size) → module, or a UsageError.
MODELS = {
  "ngram": ngram.build,
  "lstm": recurrent.build_lstm,
  "gru": recurrent.build_gru,
  "rnn": recurrent.build_rnn,
  "min_gru": min_rnn.build,
  "min_lstm": min_rnn.build,
  "rg_lru": rg_lru.build,
  "xlstm": xlstm.build,
  "gated_convolution": gated_convolution.build,
  "transformer": transformer.build,
  "transformer_xl": transformer_xl.build,
  "encoder": encoder.build,
  "encoder_decoder": encoder_decoder.build,
  "word_vectors": word_vectors.build,
  "recurrent_encoder": recurrent_encoder.build,
  "recurrent_seq2seq": recurrent_seq2seq.build,
  "text_cnn": text_cnn.build,
  "bag_of_ngrams": bag_of_ngrams.build,
}
# Task → what it puts on an encoder: (config, encoder, sizes) → module.
HEADS = {
  "classification": text_classifier.build,
  "tagging": tagger.build,
  "matching": text_matcher.build,
}


def build_model(config: ConfigDict, vocab_size: int, **sizes: int) -> nn.Module:
  """Make the model that a config describes, with the head of its task.

  Args:
    config: has the model's and the head's settings.
    vocab_size: number of tokens.
    **sizes: what else there is to know of the vocabulary, as how many labels;
      builders have small defaults, by which settings can be checked.

  Raises:
    UsageError: if the settings do not fit together.
  """
  build, head = MODELS[config.model.name], HEADS.get(config.task)
  if head is None:
    return build(config, vocab_size, **sizes)
  return head(config, build(config, vocab_size), **sizes)
