# SPDX-License-Identifier: Apache-2.0
"""Complete models, selected by name.

An autoregressive model is a function (variables, tokens, carry) → (hidden,
carry). Training on shuffled sequences, training on contiguous streams, prefill
and decoding are the same call:

    carry = model.initial_carry(batch_size, capacity)
    hidden, carry = model.apply(variables, tokens_BT, carry, resets_BT)
    logits_BTV = model.apply(variables, hidden, method="logits")
    sums = model.apply(variables, hidden, targets_BT, weights_BT,
                       method="cross_entropy")

- Every leaf of a carry has its batch axis first, so that rows can be selected
  and reordered, as in beam search. `carry=None` is an empty carry whose updated
  value is not needed.
- `hidden` is hidden_BTD for most models, and logits are hidden_BTD · tableᵀ +
  bias. Other models may return any tree whose leaves have leading axes [B, T];
  they override `logits` and `cross_entropy`.
- `model.max_context` is the maximum number of tokens in a carry; None for no
  limit.
- LanguageModel (language_model.py) documents the other methods: `rewind`,
  `extend` and `rollback`, `for_decoding`, `resolve_auto`, `estimate`,
  `flops_per_token`.
- Encoder–decoders add `encode(sources_BS, mask_BS) → memory`, and
  `attended(sown)`, the cross-attention weights over source positions (None
  without attention).
- Text encoders are functions (variables, tokens, mask) → hidden; see
  text_encoder.py. Heads on top of them are in heads/.

The decoder-only Transformer is the best place to start: transformer.py lists
the files to read.

To add a model:

1. Write models/NAME.py: a subclass of LanguageModel (or, for a recurrent
   layer, a layer for stack.Stack), and `build(config, vocab_size)`, which
   raises UsageError for settings that do not fit together.
2. Add a line to MODELS below, and its sharding rules to sharding_rules.py.
3. Declare its config keys in MODEL_KEYS of lmjax/config/model_keys.py.
4. Add a config file to configs/, and a tiny instance to `make_models` in
   tests/tiny_models.py, whose property tests (causality, incremental decoding
   equals the full forward pass, resets, bfloat16, FLOPs) then include it.
"""

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

# Name → builder: (config, vocab_size) → module; raises UsageError.
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
