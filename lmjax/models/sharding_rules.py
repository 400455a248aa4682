# SPDX-License-Identifier: Apache-2.0
"""Default sharding rules of each model family.

A rule is a regular expression on parameter paths and the mesh axes of the last
dimensions. The first match counts, and () replicates. Leading dimensions are
replicated, so that the stacked parameters [L, ...] of blocks need no rules of
their own.

    (r"/kernel$", ("fsdp", None))  # a kernel [D, F] is sharded along D

Every rule matches a parameter of every model of its family; on a mesh that
shards parameters, lmjax.parallel.rules.check_rules raises an error otherwise.
"""

# [V, D]: along D, so that a lookup reads one row of every shard.
_TABLES = (r"(embedding|table)$", (None, "fsdp"))
# [D, F]: along the contracted dimension.
_DENSE = (r"/kernel$", ("fsdp", None))
_VECTORS = (r"(bias|scale|taps)$", ())
# A sharded recurrent kernel would be gathered in every step of the scan.
_RECURRENT_KERNELS = (r"(recurrent|projection)_kernel$", ())
_KERNELS = (r"(/|input_)kernel$", ("fsdp", None))
# [D, H, K] and [H, K, D]: along D.
_HEADS = (r"(query|key|value|distance)/kernel$", ("fsdp", None, None))
_ATTENTION_OUT = (r"attention/out/kernel$", (None, None, "fsdp"))
# [F, size, D]: along the feature maps.
_TEXT_CONVOLUTIONS = (r"conv_\d+/kernel$", ("fsdp", None, None))

_RNN = (_TABLES, _RECURRENT_KERNELS, _KERNELS, _VECTORS)
_TRANSFORMER = (_TABLES, _HEADS, _ATTENTION_OUT, _DENSE, _VECTORS)
_FEED_FORWARD = (_TABLES, _DENSE, _VECTORS)
# Block-diagonal kernels are small, and those of gates are read in every step of
# the scan.
_BLOCKS = (r"(blocks|gates_kernel|recurrent_kernel)$", ())

SHARDING_RULES = {
  "ngram": (),  # tables of counts, no parameters
  "lstm": _RNN,
  "gru": _RNN,
  "rnn": _RNN,
  "min_gru": _FEED_FORWARD,
  "min_lstm": _FEED_FORWARD,
  "rg_lru": (_TABLES, _BLOCKS, _DENSE, _VECTORS),
  "xlstm": (_TABLES, _BLOCKS, _DENSE, _VECTORS),
  "gated_convolution": _FEED_FORWARD,
  "transformer": _TRANSFORMER,
  "transformer_xl": _TRANSFORMER,
  "encoder": _TRANSFORMER,
  "encoder_decoder": _TRANSFORMER,
  # Biases (GloVe) have fewer dimensions than the rule and are replicated.
  "word_vectors": ((r"(embedding|table|bias)$", (None, "fsdp")),),
  "recurrent_encoder": _RNN,
  "recurrent_seq2seq": _RNN,
  "text_cnn": (_TABLES, _TEXT_CONVOLUTIONS, _DENSE, _VECTORS),
  "bag_of_ngrams": (_TABLES,),
}
