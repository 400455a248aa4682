# SPDX-License-Identifier: Apache-2.0
"""Recurrent language models: LSTM, GRU and Elman RNN."""

import functools
import itertools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.activation_regularization import ActivationRegularization
from lmjax.layers.embedding_dropout import EmbeddingDropout
from lmjax.layers.locked_dropout import LockedDropout
from lmjax.layers.recurrent import RecurrentLayer
from lmjax.models.stack import Stack, State
from lmjax.types import Array

RNN_CELLS = {"tanh": "rnn", "relu": "relu_rnn"}  # by activation


class RecurrentStack(Stack):
  """Recurrent language model with the regularizers of the AWD-LSTM.

  Merity et al. 2018 (arXiv:1708.02182). All are off by default and independent
  of `dropout`. Weight drop is an attribute of the layers.

  Attributes:
    residual: whether a layer's input is added to its output, where both have
      the same width.
    embedding_dropout: fraction of the vocabulary dropped; see EmbeddingDropout.
    input_dropout: locked dropout rate of the embeddings; see LockedDropout.
    hidden_dropout: locked dropout rate between layers.
    output_dropout: locked dropout rate of the last layer's output.
    activation_regularization: weight of the mean square of the last layer's
      output (AR); see ActivationRegularization.
    temporal_activation_regularization: weight of the mean square of its change
      between time steps (TAR).
  """

  residual: bool = False
  embedding_dropout: float = 0.0
  input_dropout: float = 0.0
  hidden_dropout: float = 0.0
  output_dropout: float = 0.0
  activation_regularization: float = 0.0
  temporal_activation_regularization: float = 0.0

  def setup(self):
    """Create the layers and their regularizers."""
    super().setup()
    self.drop_tokens = EmbeddingDropout(self.embedding_dropout, self.vocab_size)
    self.drop_input = LockedDropout(self.input_dropout)
    self.drop_hidden = LockedDropout(self.hidden_dropout)
    self.drop_output = LockedDropout(self.output_dropout)
    self.regularize = ActivationRegularization(
      self.activation_regularization, self.temporal_activation_regularization
    )

  def embed(self, tokens_BT: Array) -> Array:
    """Return the input of the first layer, [B, T, E]."""
    x_BTE = self.drop_tokens(self.embedding(tokens_BT), tokens_BT)
    return self.drop(self.drop_input(x_BTE))

  def apply_layer(
    self, index: int, x: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Apply one layer, with its dropout and residual connection."""
    is_last = index == len(self.layers) - 1
    hidden, state = self.layers[index](x, state, resets_BT)
    drop = self.drop_output if is_last else self.drop_hidden
    dropped = self.drop(drop(hidden))
    if is_last:
      # AR penalizes the output after dropout, TAR the change of the output
      # before it (Merity et al. 2017, arXiv:1708.01009).
      self.regularize(dropped, hidden)
    if self.residual and dropped.shape == x.shape:
      dropped += x
    return dropped, state


def build_lstm(config: ConfigDict, vocab_size: int) -> RecurrentStack:
  """Build an LSTM: plain, layer-normalized or projected.

  Raises:
    UsageError: if widths do not fit tied embeddings or residual connections.
  """
  model, data = config.model, config.data
  # cuDNN has a kernel for plain float32 LSTMs. It runs a whole sequence at
  # once, without resetting states in between.
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
  """Build a GRU.

  Raises:
    UsageError: if widths do not fit tied embeddings or residual connections.
  """
  return _build(config, vocab_size, "gru")


def build_rnn(config: ConfigDict, vocab_size: int) -> RecurrentStack:
  """Build an Elman RNN.

  Raises:
    UsageError: if widths do not fit tied embeddings or residual connections.
  """
  return _build(config, vocab_size, RNN_CELLS[config.model.activation])


def _build(
  config: ConfigDict,
  vocab_size: int,
  cell: str,
  projection_width: int = 0,
  **options: str | float,
) -> RecurrentStack:
  """Build a model whose layers all have one cell."""
  model = config.model
  embedding_width = model.embedding_width or model.width
  widths = [projection_width or model.width] * model.num_layers
  if model.tie_embeddings:
    # The output layer is the embedding table, so the last layer has the width
    # of the embeddings (Merity et al. 2018).
    if model.num_layers == 1 and embedding_width != widths[0]:
      key = "model.projection_width" if projection_width else "model.width"
      raise UsageError(
        f"model.embedding_width={embedding_width} must equal {key}="
        f"{widths[0]} when model.tie_embeddings is true and there is one layer."
      )
    widths[-1] = embedding_width
  pairs = itertools.pairwise([embedding_width, *widths])
  if model.residual and all(inputs != outputs for inputs, outputs in pairs):
    raise UsageError(
      "model.residual=true needs a layer as wide as its input: "
      f"model.embedding_width={embedding_width}, layers "
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
