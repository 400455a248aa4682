# SPDX-License-Identifier: Apache-2.0
"""The recurrent text encoder, bidirectional by default."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.layers.dropout import Dropout
from lmjax.layers.embedding_dropout import EmbeddingDropout
from lmjax.layers.embeddings import TokenEmbedding
from lmjax.layers.locked_dropout import LockedDropout
from lmjax.layers.recurrent import RecurrentLayer
from lmjax.layers.stateful import State
from lmjax.models.text_encoder import TextEncoder
from lmjax.types import Array


class RecurrentEncoder(TextEncoder):
  """Recurrent layers in one direction or both (Schuster & Paliwal 1997).

  The two directions of a layer are concatenated and are the input of the next
  layer (Graves & Schmidhuber 2005). The forward layers have the parameter paths
  of a recurrent language model, so that its weights can initialize them.

  Attributes:
    vocab_size: vocabulary size V.
    embedding_width: width E of the token embeddings.
    make_layer: constructor of a layer of one direction, given its width.
    num_layers: number of layers in each direction.
    width: width of a layer in one direction.
    bidirectional: whether there are backward layers.
    dropout: dropout rate of embeddings and layer outputs.
    embedding_dropout: fraction of the vocabulary dropped; see EmbeddingDropout.
    locked_dropout: dropout rate of embeddings and layer outputs, with one mask
      for all tokens of a text; see LockedDropout.
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

  input_width = None  # layers adapt to any width

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
    """Width of the hidden vectors."""
    return self.width + self.backward_width

  @property
  def backward_width(self) -> int:
    """Number of features, at the end, of the backward layer."""
    return self.width if self.bidirectional else 0

  def embed(self, tokens_BT: Array) -> Array:
    """Return the token embeddings, [B, T, E]."""
    return self.drop_tokens(self.embedding(tokens_BT), tokens_BT)

  def contextualize(self, x_BTE: Array, mask_BT: Array) -> Array:
    """Transform embeddings: [B, T, any] to [B, T, hidden_width]."""
    return self.apply_layers(x_BTE, mask_BT)[0]

  def apply_layers(
    self, x_BTE: Array, mask_BT: Array
  ) -> tuple[Array, tuple[tuple[State, ...], ...]]:
    """Transform token embeddings, and return also the final states.

    Returns:
      hidden [B, T, hidden_width], and for each layer the final state of each
      direction: after the last token of the forward layer, and after the first
      token of the backward layer.
    """
    x, final_states = self.drop(self.drop_locked(x_BTE)), []
    for index, layer in enumerate(self.layers):
      empty = layer.initial_state(len(x), x.shape[-1])
      hidden, state = layer(x, empty, None, mask_BT)
      directions, states = [hidden], [state]
      if self.bidirectional:
        # Padding comes first in the reversed sequence. The mask skips its
        # steps, so the state is still empty at the last token of the text.
        reversed_x, reversed_mask_BT = x[:, ::-1], mask_BT[:, ::-1]
        backward = self.backward_layers[index]
        hidden, state = backward(reversed_x, empty, None, reversed_mask_BT)
        directions.append(hidden[:, ::-1])
        states.append(state)
      x = self.drop(self.drop_locked(jnp.concatenate(directions, axis=-1)))
      final_states.append(tuple(states))
    return x, tuple(final_states)

  @nn.nowrap
  def flops_per_token(self, seq_len: int) -> int:
    """Return the matmul FLOPs per token of the layers in both directions."""
    del seq_len
    layer = self.make_layer(width=self.width, parent=None)
    inputs = [self.embedding_width]
    inputs += [self.hidden_width] * (self.num_layers - 1)
    num_directions = 2 if self.bidirectional else 1
    return num_directions * sum(map(layer.flops_per_token, inputs))


def build(config: ConfigDict, vocab_size: int) -> RecurrentEncoder:
  """Build the encoder of a config."""
  model = config.model
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
