# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers over a text that is there as a whole, in both directions."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.layers.dropout import Dropout
from lmjax.layers.embedding_dropout import EmbeddingDropout
from lmjax.layers.embeddings import TokenEmbedding
from lmjax.layers.initializers import INITIALIZERS
from lmjax.layers.locked_dropout import LockedDropout
from lmjax.layers.recurrent import RecurrentLayer
from lmjax.layers.stateful import State
from lmjax.models.choices import check_choice
from lmjax.models.text_encoder import TextEncoder
from lmjax.ops.cells import CELLS
from lmjax.types import Array


class RecurrentEncoder(TextEncoder):
  """Recurrent layers, each in one direction or in both side by side.

  Schuster & Paliwal 1997; Graves & Schmidhuber 2005. A layer reads what those
  below made in both directions. Parameters have the names of a recurrent
  language model's, which reads in one direction.

  Attributes:
    vocab_size: number of tokens V.
    embedding_width: width E of the token embeddings.
    make_layer: what makes a layer of one direction.
    num_layers: how many, in each direction.
    width: width of a layer in one direction.
    bidirectional: whether there are layers that read backward.
    dropout: share of features dropped on embeddings and behind layers.
    embedding_dropout: share of the vocabulary; see EmbeddingDropout.
    locked_dropout: share of features on embeddings and behind layers, the same
      ones at all tokens of a text; see LockedDropout.
    embedding_scale: standard deviation of the embeddings at initialization.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  vocab_size: int
  embedding_width: int
  make_layer: functools.partial
  num_layers: int
  width: int
  bidirectional: bool
  dropout: float = 0.0
  embedding_dropout: float = 0.0
  locked_dropout: float = 0.0
  embedding_scale: float = 0.1
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  input_width = None

  def setup(self):
    """Create the layers."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    self.embedding = TokenEmbedding(
      self.vocab_size,
      self.embedding_width,
      init_scale=self.embedding_scale,
      **dtypes,
    )

    def layers(name: str) -> list[nn.Module]:
      return [
        self.make_layer(width=self.width, name=f"{name}_{index}", **dtypes)
        for index in range(self.num_layers)
      ]

    self.layers = layers("layer")
    self.backward_layers = layers("backward") if self.bidirectional else []
    self.drop_tokens = EmbeddingDropout(self.embedding_dropout, self.vocab_size)
    self.drop_locked = LockedDropout(self.locked_dropout)
    self.drop = Dropout(self.dropout)

  @property
  def hidden_width(self) -> int:
    """Width of what comes out."""
    return self.width + self.backward_width

  @property
  def backward_width(self) -> int:
    """How much of it was read backward."""
    return self.width if self.bidirectional else 0

  def embed(self, tokens_BT: Array) -> Array:
    """Look tokens up, [B, T, E]."""
    return self.drop_tokens(self.embedding(tokens_BT), tokens_BT)

  def contextualize(self, x_BTE: Array, mask_BT: Array) -> Array:
    """Read vectors of tokens: [B, T, any] to [B, T, hidden_width]."""
    return self.read(x_BTE, mask_BT)[0]

  def read(
    self, x_BTE: Array, mask_BT: Array
  ) -> tuple[Array, tuple[tuple[State, ...], ...]]:
    """Read vectors of tokens, and return also what each layer ends in.

    Returns:
      hidden [B, T, hidden_width], and for each layer its state behind the last
      token, and behind the first where it reads backward.
    """
    x, ends = self.drop(self.drop_locked(x_BTE)), []
    for index, layer in enumerate(self.layers):
      empty = layer.initial_state(len(x), x.shape[-1])
      hidden, end = layer(x, empty, None, mask_BT)
      made, states = [hidden], [end]
      if self.bidirectional:
        turned_x, turned_mask_BT = x[:, ::-1], mask_BT[:, ::-1]
        backward = self.backward_layers[index]
        hidden, end = backward(turned_x, empty, None, turned_mask_BT)
        made.append(hidden[:, ::-1])
        states.append(end)
      x = self.drop(self.drop_locked(jnp.concatenate(made, axis=-1)))
      ends.append(tuple(states))
    return x, tuple(ends)


def build(config: ConfigDict, vocab_size: int) -> RecurrentEncoder:
  """Make the encoder that a config describes.

  Raises:
    UsageError: if a choice is not known.
  """
  model = config.model
  check_choice(model, "cell", CELLS)
  for key in ("initializer", "recurrent_initializer"):
    check_choice(model, key, INITIALIZERS)
  make_layer = functools.partial(
    RecurrentLayer,
    model.cell,
    initializer=model.initializer,
    recurrent_initializer=model.recurrent_initializer,
    weight_drop=model.weight_drop,
    norm_epsilon=model.norm_epsilon,
  )
  return RecurrentEncoder(
    vocab_size=vocab_size,
    embedding_width=model.embedding_width or model.width,
    make_layer=make_layer,
    num_layers=model.num_layers,
    width=model.width,
    bidirectional=model.bidirectional,
    dropout=model.dropout,
    embedding_dropout=model.embedding_dropout,
    locked_dropout=model.locked_dropout,
    embedding_scale=model.embedding_scale,
    dtype=jnp.dtype(model.dtype),
    param_dtype=jnp.dtype(model.param_dtype),
  )
