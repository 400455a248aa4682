# SPDX-License-Identifier: Apache-2.0
"""Tiny models of every family; sizes differ, so that swapped axes show."""

import functools

from lmjax.config import defaults
from lmjax.layers.moe import Experts
from lmjax.layers.recurrent import RecurrentLayer
from lmjax.models import MODELS
from lmjax.models.encoder import Encoder
from lmjax.models.encoder_decoder import EncoderDecoder
from lmjax.models.language_model import LanguageModel
from lmjax.models.recurrent import RecurrentStack
from lmjax.models.transformer import Transformer
from lmjax.models.transformer_stack import TransformerStack
from lmjax.models.transformer_xl import TransformerXL, TransformerXLStack

VOCAB_SIZE = 11


def recurrent(
  cell: str,
  vocab_size: int = VOCAB_SIZE,
  width: int = 8,
  embedding_width: int = 6,
  num_layers: int = 2,
  **options,
) -> RecurrentStack:
  """Make a recurrent model; an LSTM's options among those of the stack."""
  of_layers = {
    key: options.pop(key)
    for key in ("cell_width", "weight_drop")
    if key in options
  }
  layer = functools.partial(RecurrentLayer, cell, width, **of_layers)
  settings = dict(dropout=0.0, tie_embeddings=False) | options
  return RecurrentStack(
    vocab_size, embedding_width, (layer,) * num_layers, **settings
  )


TRANSFORMER = dict(
  width=8,
  num_layers=2,
  num_heads=4,
  num_kv_heads=4,
  feed_forward="gelu",
  feed_forward_width=12,
  norm="layer",
  positions="rotary",
  max_context=16,
  dropout=0.0,
  use_bias=True,
  remat=False,
)


def take(options: dict, *names: str) -> dict:
  """Remove a model's own attributes from options of its stack, and return them.

  Embeddings are tied unless the options say otherwise.
  """
  own = {name: options.pop(name) for name in names if name in options}
  return {"tie_embeddings": True} | own


def clone(model: LanguageModel, **changes) -> LanguageModel:
  """Return a copy with changed attributes, of its stack if it has one."""
  if hasattr(model, "stack"):
    return model.clone(stack=model.stack.clone(**changes))
  return model.clone(**changes)


def transformer(vocab_size: int = VOCAB_SIZE, **options) -> Transformer:
  """Make a Transformer."""
  own = take(options, "int8_cache", "tie_embeddings")
  stack = TransformerStack(**(TRANSFORMER | options))
  return Transformer(vocab_size=vocab_size, stack=stack, **own)


def transformer_xl(vocab_size: int = VOCAB_SIZE, **options) -> TransformerXL:
  """Make a Transformer-XL."""
  own = {"memory": 16} | take(options, "memory", "tie_embeddings")
  settings = TRANSFORMER | options
  del settings["positions"], settings["max_context"]
  stack = TransformerXLStack(**settings)
  return TransformerXL(vocab_size=vocab_size, stack=stack, **own)


def built(family: str, vocab_size: int = VOCAB_SIZE, **options):
  """Make a model as a config would, of one layer."""
  config = defaults.get_config(model=family)
  config.model.update(dict(num_layers=1, width=8) | options)
  return MODELS[family](config, vocab_size)


def encoder(vocab_size: int = VOCAB_SIZE, **options) -> Encoder:
  """Make an encoder."""
  own = take(options, "tie_embeddings")
  stack = TransformerStack(causal=False, **(TRANSFORMER | options))
  return Encoder(vocab_size=vocab_size, stack=stack, **own)


def encoder_decoder(vocab_size: int = VOCAB_SIZE, **options) -> EncoderDecoder:
  """Make an encoder–decoder."""
  own = take(options, "source_vocab_size", "tie_embeddings", "int8_cache")
  layers = options.pop("num_encoder_layers", 2)
  settings = TRANSFORMER | options
  encoder = settings | dict(num_layers=layers, causal=False, attention_window=0)
  return EncoderDecoder(
    vocab_size=vocab_size,
    stack=TransformerStack(has_cross_attention=True, **settings),
    encoder=TransformerStack(**encoder),
    **own,
  )


def make_models(dropout: float) -> dict[str, LanguageModel]:
  """Make a model of every kind that keeps the contract."""
  return {
    "lstm": recurrent("lstm", dropout=dropout),
    "gru, residual": recurrent("gru", residual=True, dropout=dropout),
    "lstm, layer norm, projected, AWD": recurrent(
      "layer_norm_lstm",
      embedding_width=8,
      cell_width=5,
      tie_embeddings=True,
      weight_drop=dropout,
      embedding_dropout=dropout,
      input_dropout=dropout,
      hidden_dropout=dropout,
      output_dropout=dropout,
      activation_regularization=2.0,
      temporal_activation_regularization=1.0,
    ),
    "learned, gelu, layer": transformer(positions="learned", dropout=dropout),
    "rotary, swiglu, rms, grouped, remat": transformer(
      num_kv_heads=2,
      feed_forward="swiglu",
      norm="rms",
      tie_embeddings=False,
      remat=True,
      dropout=dropout,
    ),
    "sinusoidal, one kv head, windowed": transformer(
      num_kv_heads=1,
      attention_window=4,
      norm="layer_no_bias",
      norm_position="post",
      qk_norm="rms",
      positions="sinusoidal",
      dropout=dropout,
    ),
    "min_gru": built("min_gru", recurrent_width=12, dropout=dropout),
    "min_lstm, alone": built(
      "min_lstm", conv_size=0, feed_forward="none", dropout=dropout
    ),
    "rg_lru": built("rg_lru", num_heads=2, dropout=dropout),
    "xlstm": built(
      "xlstm", blocks="ms", num_layers=2, num_heads=2, dropout=dropout
    ),
    "gated_convolution": built(
      "gated_convolution",
      num_layers=2,
      embedding_width=6,
      bottleneck_width=5,
      norm="rms",
      dropout=dropout,
    ),
    "relative, experts, batch norm": transformer(
      num_layers=2,
      num_kv_heads=2,
      feed_forward="geglu",
      experts=Experts(number=3, per_token=2, capacity_factor=1.0),
      norm="batch",
      positions="relative",
      dropout=dropout,
    ),
    "xl": transformer_xl(num_layers=2, dropout=dropout),
  }
