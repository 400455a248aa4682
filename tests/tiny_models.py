# SPDX-License-Identifier: Apache-2.0
"""Tiny models of every family; sizes differ, so that swapped axes show."""

import functools

import jax

from lmjax.layers.moe import Experts
from lmjax.layers.recurrent import RecurrentLayer
from lmjax.models.encoder import Encoder
from lmjax.models.encoder_decoder import EncoderDecoder
from lmjax.models.language_model import LanguageModel
from lmjax.models.stack import Stack
from lmjax.models.transformer import Transformer
from lmjax.models.transformer_xl import TransformerXL

VOCAB_SIZE = 11


def recurrent(
  cell: str,
  vocab_size: int = VOCAB_SIZE,
  width: int = 8,
  embedding_width: int = 6,
  num_layers: int = 2,
  **options,
) -> Stack:
  """Make a recurrent model."""
  layer = functools.partial(RecurrentLayer, cell, width)
  settings = dict(dropout=0.0, tie_embeddings=False) | options
  return Stack(vocab_size, embedding_width, (layer,) * num_layers, **settings)


TRANSFORMER = dict(
  width=8,
  num_layers=3,
  num_heads=4,
  num_kv_heads=4,
  feed_forward="gelu",
  feed_forward_width=12,
  norm="layer",
  positions="rotary",
  context=16,
  dropout=0.0,
  use_bias=True,
  tie_embeddings=True,
  remat=False,
)


def transformer(vocab_size: int = VOCAB_SIZE, **options) -> Transformer:
  """Make a Transformer."""
  return Transformer(vocab_size=vocab_size, **(TRANSFORMER | options))


def transformer_xl(vocab_size: int = VOCAB_SIZE, **options) -> TransformerXL:
  """Make a Transformer-XL."""
  settings = {**TRANSFORMER, "memory": 16}
  del settings["positions"], settings["context"]
  return TransformerXL(vocab_size=vocab_size, **(settings | options))


def encoder(vocab_size: int = VOCAB_SIZE, **options) -> Encoder:
  """Make an encoder."""
  return Encoder(vocab_size=vocab_size, **(TRANSFORMER | options))


def encoder_decoder(vocab_size: int = VOCAB_SIZE, **options) -> EncoderDecoder:
  """Make an encoder–decoder."""
  settings = {**TRANSFORMER, "num_encoder_layers": 2}
  return EncoderDecoder(vocab_size=vocab_size, **(settings | options))


def draw(model: LanguageModel, *inputs: jax.Array, **options: jax.Array):
  """Make variables large enough that all of them matter."""

  @jax.jit
  def make():
    variables = model.init(jax.random.key(0), *inputs, **options)
    keys = iter(jax.random.split(jax.random.key(2), 99))
    return jax.tree.map(
      lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape),
      variables,
    )

  return make()


def make_models(dropout: float) -> dict[str, LanguageModel]:
  """Make a model of every kind that keeps the contract."""
  return {
    "lstm": recurrent("lstm", dropout=dropout),
    "lstm tied": recurrent(
      "lstm", embedding_width=8, tie_embeddings=True, dropout=dropout
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
