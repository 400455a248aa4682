# SPDX-License-Identifier: Apache-2.0
"""Config keys of every model family: default, valid range and choices.

A size of 0 is derived, as its comment says.
"""

from lmjax.task_specs.key import (
  Key,
  Keys,
  above_zero,
  choice,
  fraction,
  positive,
  rate,
)

_DTYPES = dict(
  dtype=choice("float32", "bfloat16"),  # of matmuls and activations
  param_dtype=choice("float32", "bfloat16"),
)
_INITIALIZER = Key(
  "glorot_uniform",
  choices=(
    "uniform",  # ±1/√inputs
    "normal",  # standard deviation 0.02
    "glorot_uniform",
    "glorot_normal",
    "he_normal",
    "lecun_normal",
    "orthogonal",
  ),
)


def _initializer(default: str) -> Key:
  return Key(default, choices=_INITIALIZER.choices)


_NORMS = ("layer", "layer_no_bias", "rms", "batch")


def _norm(default: str) -> Key:
  return Key(default, choices=_NORMS)


def _optional_norm(default: str) -> Key:
  return Key(default, choices=(*_NORMS, "none"))


# Added to variances by all norms of a model; 0: 1e-5 with norm=batch, else 1e-6
_NORM_EPSILON = Key(0.0, maximum=1)
# The same in cells with layer normalization
_CELL_NORM_EPSILON = above_zero(1e-5, maximum=1)

_FEED_FORWARDS = (
  # Plain layers, by their activation.
  "sigmoid",
  "tanh",
  "relu",
  "gelu",
  "gelu_exact",
  "silu",
  # Gated linear units (Shazeer 2020, arXiv:2002.05202).
  "glu",
  "reglu",
  "geglu",
  "swiglu",
  "bilinear",
)


def _feed_forward(default: str) -> Key:
  return Key(default, choices=_FEED_FORWARDS)


def _optional_feed_forward(default: str) -> Key:
  return Key(default, choices=(*_FEED_FORWARDS, "none"))


_CELL = choice("lstm", "layer_norm_lstm", "gru", "rnn", "relu_rnn")

_RECURRENT = dict(
  num_layers=positive(2),
  width=positive(256),
  embedding_width=Key(0),  # 0: width
  initializer=_INITIALIZER,  # of input kernels
  recurrent_initializer=_initializer("uniform"),
  residual=Key(False),  # residual connections where widths are equal
  tie_embeddings=Key(False),  # the last layer is then embedding_width wide
  dropout=rate(0.0),  # on embeddings and layer outputs, one mask per token
  embedding_dropout=rate(0.0),  # of whole rows of the embedding table
  # One mask per row and sequence (locked dropout): on embeddings, ...
  input_dropout=rate(0.0),
  hidden_dropout=rate(0.0),  # ... between layers, ...
  output_dropout=rate(0.0),  # ... and on the output of the last layer
  weight_drop=rate(0.0),  # of recurrent kernels
  activation_regularization=Key(0.0),  # weight of the output's mean square
  temporal_activation_regularization=Key(0.0),  # and of its change's
  **_DTYPES,
)
_MIN_RNN = dict(
  num_layers=positive(3),
  width=positive(128),
  recurrent_width=Key(0),  # 0: width
  conv_size=Key(4),  # tokens of the short convolution; 0: none
  feed_forward=_optional_feed_forward("gelu"),
  feed_forward_width=Key(0),  # 0: 4 · width
  norm=_optional_norm("rms"),
  norm_epsilon=_NORM_EPSILON,
  dropout=rate(0.0),
  tie_embeddings=Key(True),
  **_DTYPES,
)
# All Transformers have these.
_BLOCKS = dict(
  num_layers=positive(4),
  width=positive(128),
  num_heads=Key(4),
  feed_forward=_feed_forward("gelu"),
  feed_forward_width=Key(0),  # 0: 4 · width
  num_experts=Key(0),  # per feed-forward layer; 0: dense
  experts_per_token=positive(2),
  # Tokens per expert in training, relative to an even split; 0: no limit
  capacity_factor=Key(0.0),
  balance_loss=Key(0.01),  # weight of the load-balancing loss
  router_z_loss=Key(0.001),  # weight of the router's z-loss
  norm=_norm("layer"),
  norm_epsilon=_NORM_EPSILON,
  norm_position=choice("pre", "post"),
  qk_norm=choice("none", "layer", "layer_no_bias", "rms"),
  dropout=rate(0.0),
  use_bias=Key(False),
  tie_embeddings=Key(True),
  initializer=_initializer("normal"),
  remat=Key(False),  # recompute activations in the backward pass
  # scan: compile one block and loop over it; auto: unroll few layers on a CPU
  scan_layers=choice("auto", "scan", "unrolled"),
  **_DTYPES,
)
_POSITIONS = (
  "learned",
  "sinusoidal",
  "rotary",
  "relative",  # T5
  "alibi",
  "none",
)


def _positions(default: str) -> Key:
  return Key(default, choices=_POSITIONS)


# All Transformers but Transformer-XL have these too.
_STACK = dict(
  **_BLOCKS,
  num_kv_heads=Key(0),  # 0: num_heads
  positions=_positions("rotary"),
  rope_base=above_zero(10_000.0),  # of the wavelengths of rotary positions
  # Tokens that the cache holds, and learned positions; 0: data.seq_len
  max_context=Key(0),
  # Of attention weights, which are then stored: T · T values per head
  attention_dropout=rate(0.0),
)


def _named(name: str, **keys: Key) -> Keys:
  return dict(name=Key(name), **keys)


MODEL_KEYS: dict[str, Keys] = dict(
  ngram=_named(
    "ngram",
    order=Key(5, minimum=1, maximum=7),
    smoothing=Key(
      "modified_kneser_ney",
      choices=(
        "maximum_likelihood",
        "add_k",
        "stupid_backoff",
        "kneser_ney",
        "modified_kneser_ney",
      ),
    ),
    add_k=above_zero(0.1),  # smoothing=add_k: added to every count
    backoff_factor=Key(0.4),  # smoothing=stupid_backoff
    arpa=Key(""),  # ARPA file to load; empty: count the training text
  ),
  lstm=_named(
    "lstm",
    layer_norm=Key(False),
    norm_epsilon=_CELL_NORM_EPSILON,
    projection_width=Key(0),  # of hidden vectors; 0: no projection
    implementation=choice("auto", "scan", "cudnn"),
    **_RECURRENT,
  ),
  gru=_named("gru", **_RECURRENT),
  rnn=_named("rnn", activation=choice("tanh", "relu"), **_RECURRENT),
  transformer=_named(
    "transformer",
    attention_window=Key(0),  # newest positions that a token attends to; 0: all
    **_STACK,
  ),
  transformer_xl=_named(
    "transformer_xl",
    memory_length=positive(128),  # hidden states cached from earlier sequences
    **_BLOCKS,
  ),
  encoder=_named(
    "encoder",
    **_STACK | dict(positions=_positions("learned"), use_bias=Key(True)),
  ),
  encoder_decoder=_named(
    "encoder_decoder",
    num_encoder_layers=Key(0),  # 0: num_layers
    **_STACK
    | dict(
      positions=_positions("relative"),
      norm=_norm("rms"),
      feed_forward=_feed_forward("relu"),
    ),
  ),
  word_vectors=_named("word_vectors", width=positive(100), **_DTYPES),
  min_gru=_named("min_gru", **_MIN_RNN),
  min_lstm=_named("min_lstm", **_MIN_RNN),
  gated_convolution=_named(
    "gated_convolution",
    num_layers=positive(6),
    width=positive(128),
    embedding_width=Key(0),  # 0: width
    conv_size=positive(4),  # tokens that a convolution covers
    bottleneck_width=Key(0),  # of convolutions above the first; 0: none
    weight_norm=Key(True),
    norm=_optional_norm("none"),
    norm_epsilon=_NORM_EPSILON,
    dropout=rate(0.0),
    tie_embeddings=Key(False),
    **_DTYPES,
  ),
  xlstm=_named(
    "xlstm",
    blocks=Key("m"),  # m: mLSTM, s: sLSTM; repeated over the layers
    num_layers=positive(3),
    width=positive(192),
    inner_width=Key(0),  # of an mLSTM; 0: 2 · width
    num_heads=positive(4),
    block_width=positive(4),  # of an mLSTM's block-diagonal projections
    conv_size=Key(4),  # tokens of the short convolution; 0: none
    feed_forward=_optional_feed_forward("geglu"),  # after an sLSTM
    feed_forward_width=Key(0),  # 0: 4/3 · width
    norm=_optional_norm("layer_no_bias"),
    norm_epsilon=_NORM_EPSILON,  # of the heads' norms too
    dropout=rate(0.0),
    tie_embeddings=Key(True),
    **_DTYPES,
  ),
  rg_lru=_named(
    "rg_lru",
    num_layers=positive(4),
    width=positive(120),
    # 0: 4/3 · width, rounded down to a multiple of num_heads
    recurrent_width=Key(0),
    num_heads=Key(8),  # blocks of the block-diagonal gates
    conv_size=Key(4),  # tokens of the short convolution; 0: none
    feed_forward=_optional_feed_forward("geglu"),
    feed_forward_width=Key(0),  # 0: 3 · width
    norm=_optional_norm("rms"),
    norm_epsilon=_NORM_EPSILON,
    dropout=rate(0.0),
    tie_embeddings=Key(True),
    **_DTYPES,
  ),
  recurrent_encoder=_named(
    "recurrent_encoder",
    cell=_CELL,
    norm_epsilon=_CELL_NORM_EPSILON,  # cell=layer_norm_lstm
    bidirectional=Key(True),
    num_layers=positive(1),
    width=positive(128),  # of a layer in one direction
    embedding_width=Key(0),  # 0: width
    embedding_scale=Key(0.1),  # standard deviation at initialization
    initializer=_INITIALIZER,
    recurrent_initializer=_initializer("orthogonal"),
    dropout=rate(0.3),  # on embeddings and layer outputs, one mask per token
    locked_dropout=rate(0.0),  # there too, one mask per text
    embedding_dropout=rate(0.0),  # of whole rows of the embedding table
    weight_drop=rate(0.0),  # of recurrent kernels
    **_DTYPES,
  ),
  recurrent_seq2seq=_named(
    "recurrent_seq2seq",
    cell=_CELL,
    norm_epsilon=_CELL_NORM_EPSILON,  # cell=layer_norm_lstm
    bidirectional=Key(True),  # the encoder
    num_layers=positive(1),  # of the decoder
    num_encoder_layers=Key(0),  # 0: num_layers
    width=positive(256),  # of the decoder, and of both encoder directions
    embedding_width=Key(0),  # 0: width
    attention=Key(
      "general",
      choices=("none", "additive", "general", "dot", "scaled_dot"),
    ),
    input_feeding=Key(False),  # the attentional vector is an input (Luong 2015)
    copy_mechanism=Key(False),  # pointer–generator (See et al. 2017)
    # Fraction of training inputs sampled from the model (Bengio et al. 2015)
    scheduled_sampling=fraction(0.0),
    tie_embeddings=Key(False),
    initializer=_INITIALIZER,
    recurrent_initializer=_initializer("orthogonal"),
    dropout=rate(0.2),  # on embeddings, layer outputs and attentional vectors
    **_DTYPES,
  ),
  text_cnn=_named(
    "text_cnn",
    kernel_sizes=Key((3, 4, 5)),  # tokens that the convolutions cover
    width=positive(128),  # feature maps per kernel size
    embedding_width=Key(0),  # 0: width
    embedding_scale=Key(0.03),  # standard deviation at initialization
    initializer=_INITIALIZER,
    dropout=rate(0.0),  # on embeddings
    embedding_dropout=rate(0.0),  # of whole rows of the embedding table
    **_DTYPES,
  ),
  bag_of_ngrams=_named(
    "bag_of_ngrams",
    order=positive(2),  # longest n-grams; 1: only words
    num_buckets=positive(2**15),  # vectors that hashed n-grams share
    width=positive(64),
    embedding_scale=Key(0.03),  # standard deviation at initialization
    dropout=rate(0.0),  # on vectors
    embedding_dropout=rate(0.0),  # of whole rows of the embedding table
    **_DTYPES,
  ),
)

# Task that a model learns where none is named; others learn language_modeling.
DEFAULT_TASKS = dict(
  recurrent_encoder="classification",
  recurrent_seq2seq="seq2seq",
  text_cnn="classification",
  bag_of_ngrams="classification",
  encoder="masked_lm",
  encoder_decoder="span_corruption",
  word_vectors="skip_gram",
)
# Text with a blank for models that fill blanks; others continue a line end.
DEFAULT_PROMPTS = dict(encoder="the ___", encoder_decoder="the ___")
