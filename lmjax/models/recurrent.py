# SPDX-License-Identifier: Apache-2.0
"""Recurrent language models: LSTM, GRU and Elman's network."""

import functools
import itertools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.activation_regularization import ActivationRegularization
from lmjax.layers.embedding_dropout import EmbeddingDropout
from lmjax.layers.initializers import INITIALIZERS
from lmjax.layers.locked_dropout import LockedDropout
from lmjax.layers.recurrent import IMPLEMENTATIONS, RecurrentLayer
from lmjax.models.choices import check_choice
from lmjax.models.stack import Stack, State
from lmjax.types import Array

RNN_CELLS = {"tanh": "rnn", "relu": "relu_rnn"}  # by activation


class RecurrentStack(Stack):
  """Recurrent layers with the regularizers of the AWD-LSTM.

  Merity et al. 2018 (arXiv:1708.02182). All of them are off at 0 and may be
  had beside `dropout`; what drops weights is a matter of the layers.

  Attributes:
    residual: whether what a layer gives is added to what it read, where both
      are equally wide.
    embedding_dropout: share of the vocabulary dropped; see EmbeddingDropout.
    input_dropout: share of the embeddings' features; see LockedDropout.
    hidden_dropout: share of the features between layers.
    output_dropout: share of the features of the last layer.
    activation_regularization: weight of the last layer's mean square; see
      ActivationRegularization.
    temporal_activation_regularization: weight of its change's.
  """

  residual: bool = False
  embedding_dropout: float = 0.0
  input_dropout: float = 0.0
  hidden_dropout: float = 0.0
  output_dropout: float = 0.0
  activation_regularization: float = 0.0
  temporal_activation_regularization: float = 0.0

  def setup(self):
    """Create the layers and what regularizes them."""
    super().setup()
    self.drop_tokens = EmbeddingDropout(self.embedding_dropout, self.vocab_size)
    self.drop_input = LockedDropout(self.input_dropout)
    self.drop_hidden = LockedDropout(self.hidden_dropout)
    self.drop_output = LockedDropout(self.output_dropout)
    self.regularize = ActivationRegularization(
      self.activation_regularization, self.temporal_activation_regularization
    )

  def embed(self, tokens_BT: Array) -> Array:
    """Make what the first layer reads."""
    x_BTE = self.drop_tokens(self.embedding(tokens_BT), tokens_BT)
    return self.drop(self.drop_input(x_BTE))

  def apply_layer(
    self, index: int, x: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Apply a layer, with dropout behind it and perhaps a link around it."""
    is_last = index == len(self.layers) - 1
    hidden, state = self.layers[index](x, state, resets_BT)
    drop = self.drop_output if is_last else self.drop_hidden
    dropped = self.drop(drop(hidden))
    if is_last:
      self.regularize(dropped, hidden)
    if self.residual and dropped.shape == x.shape:
      dropped += x
    return dropped, state


def build_lstm(config: ConfigDict, vocab_size: int) -> RecurrentStack:
  """Make an LSTM: plain, layer-normalized or projected.

  Raises:
    UsageError: if the sizes do not fit together.
  """
  model, data = config.model, config.data
  check_choice(model, "implementation", IMPLEMENTATIONS)
  if model.implementation == "cudnn" and (
    jax.default_backend() != "gpu"
    or model.dtype != "float32"
    or model.layer_norm
    or model.projection_width
    or data.reset_at_documents
    or data.order == "stateful"
  ):
    raise UsageError(
      "model.implementation=cudnn needs an NVIDIA GPU, model.dtype=float32, "
      "model.layer_norm=false, model.projection_width=0, "
      "data.reset_at_documents=false and data.order=stateless; choose auto."
    )
  return _build(
    config,
    vocab_size,
    "layer_norm_lstm" if model.layer_norm else "lstm",
    model.projection_width,
    implementation=model.implementation,
    norm_epsilon=model.norm_epsilon,
  )


def build_gru(config: ConfigDict, vocab_size: int) -> RecurrentStack:
  """Make a GRU.

  Raises:
    UsageError: if the sizes do not fit together.
  """
  return _build(config, vocab_size, "gru")


def build_rnn(config: ConfigDict, vocab_size: int) -> RecurrentStack:
  """Make a network of Elman's kind.

  Raises:
    UsageError: if the activation is not known or sizes do not fit together.
  """
  check_choice(config.model, "activation", RNN_CELLS)
  return _build(config, vocab_size, RNN_CELLS[config.model.activation])


def _build(
  config: ConfigDict,
  vocab_size: int,
  cell: str,
  projection_width: int = 0,
  **options: str | float,
) -> RecurrentStack:
  """Make a model of layers with this cell."""
  model = config.model
  for key in ("initializer", "recurrent_initializer"):
    check_choice(model, key, INITIALIZERS)
  embedding_width = model.embedding_width or model.width
  widths = [projection_width or model.width] * model.num_layers
  if model.tie_embeddings:  # the table meets the last layer (Merity et al.)
    if model.num_layers == 1 and embedding_width != widths[0]:
      key = "model.projection_width" if projection_width else "model.width"
      raise UsageError(
        f"model.embedding_width={embedding_width} must equal {key}="
        f"{widths[0]} when model.tie_embeddings is true and there is one layer."
      )
    widths[-1] = embedding_width
  pairs = itertools.pairwise([embedding_width, *widths])
  if model.residual and all(before != after for before, after in pairs):
    raise UsageError(
      "model.residual=true needs a layer that is as wide as what it reads: "
      f"model.embedding_width={embedding_width} and then "
      f"{', '.join(map(str, widths))}."
    )
  layers = [
    functools.partial(
      RecurrentLayer,
      cell,
      width,
      cell_width=model.width if projection_width else 0,
      weight_drop=model.weight_drop,
      initializer=model.initializer,
      recurrent_initializer=model.recurrent_initializer,
      **options,
    )
    for width in widths
  ]
  return RecurrentStack(
    vocab_size=vocab_size,
    embedding_width=embedding_width,
    make_layers=tuple(layers),
    dropout=model.dropout,
    tie_embeddings=model.tie_embeddings,
    residual=model.residual,
    embedding_dropout=model.embedding_dropout,
    input_dropout=model.input_dropout,
    hidden_dropout=model.hidden_dropout,
    output_dropout=model.output_dropout,
    activation_regularization=model.activation_regularization,
    temporal_activation_regularization=(
      model.temporal_activation_regularization
    ),
    dtype=jnp.dtype(model.dtype),
    param_dtype=jnp.dtype(model.param_dtype),
  )
