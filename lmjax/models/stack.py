# SPDX-License-Identifier: Apache-2.0
"""Language models that are a stack of layers with a recurrent state.

Recurrent layers and causal convolutions: a layer maps inputs and its state to
outputs and its next state. A model family defines its layer and passes
constructors of its layers to `Stack`.
"""

import functools
from collections.abc import Sequence
from typing import Protocol

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.dropout import Dropout
from lmjax.layers.embeddings import OutputLayer, TokenEmbedding
from lmjax.layers.stateful import State
from lmjax.models.language_model import LanguageModel
from lmjax.types import Array, PyTree


class Layer(Protocol):
  """Interface of a layer: a Flax module with `dtype` and `param_dtype`.

  All methods except the call are for unbound modules.

  Attributes:
    width: width of the output.
  """

  width: int

  def __call__(
    self, x_BTE: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Map [B, T, E] to [B, T, width], and the state to the next state.

    The state is reset before each token where `resets_BT` is true.
    """

  def initial_state(self, batch_size: int, inputs: int) -> State:
    """Return an empty state for inputs of a given width."""

  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple[functools.partial, PyTree]:
    """Return a constructor and parameters laid out for decoding steps."""

  def resolve_auto(self, with_resets: bool) -> dict[str, str]:
    """Return what each "auto" resolves to, by config key."""

  def flops_per_token(self, inputs: int) -> int:
    """Return the matmul FLOPs per token of the forward pass."""


class Stack(LanguageModel):
  """Language model of token embeddings, a stack of layers and an output layer.

  Dropout is that of Zaremba et al. 2014 (arXiv:1409.2329): on embeddings and
  layer outputs, never on a recurrent connection. The carry is one state per
  layer.

  Attributes:
    vocab_size: vocabulary size V.
    embedding_width: width E of the token embeddings.
    make_layers: constructors of the layers, first to last; see Layer.
    dropout: dropout rate.
    tie_embeddings: whether the output layer uses the embedding table; requires
      a last layer of width E.
    embedding_scale: standard deviation of the embeddings at initialization.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  vocab_size: int
  embedding_width: int
  make_layers: tuple[functools.partial, ...]
  dropout: float
  tie_embeddings: bool
  embedding_scale: float = 0.1
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  max_context = None  # a recurrent state has no limit

  def setup(self):
    """Create the layers."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    self.embedding = TokenEmbedding(
      self.vocab_size,
      self.embedding_width,
      init_scale=self.embedding_scale,
      **dtypes,
    )
    # Checkpoints and patterns of config keys such as optim.freeze refer to the
    # names layer_0, layer_1, ...
    self.layers = [
      make(name=f"layer_{index}", **dtypes)
      for index, make in enumerate(self.make_layers)
    ]
    self.drop = Dropout(self.dropout)
    if not self.tie_embeddings:
      self.output = OutputLayer(
        self.vocab_size, self.layers[-1].width, param_dtype=self.param_dtype
      )

  def __call__(
    self,
    tokens_BT: Array,
    carry: tuple[State, ...] | None = None,
    resets_BT: Array | None = None,
  ) -> tuple[Array, tuple[State, ...] | None]:
    """Process tokens that follow those of a carry.

    Args:
      tokens_BT: int tokens.
      carry: one state per layer; None for empty states.
      resets_BT: true at the first token of each document, where states are
        reset.

    Returns:
      hidden_BTD in `dtype`, and the carry after the last token, or None if
      none was given.
    """
    states = carry or self.initial_carry(tokens_BT.shape[0], 0)
    x = self.embed(tokens_BT)
    new_carry = []
    for index, state in enumerate(states):
      x, state = self.apply_layer(index, x, state, resets_BT)
      new_carry.append(state)
    x = self.apply_final_norm(x)
    if self.is_initializing():
      self.unembedding()  # creates the parameters of the output layer
    return x, None if carry is None else tuple(new_carry)

  def embed(self, tokens_BT: Array) -> Array:
    """Return the input of the first layer, [B, T, E]."""
    return self.drop(self.embedding(tokens_BT))

  def apply_layer(
    self, index: int, x: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Apply one layer, with its dropout and residual connection."""
    x, state = self.layers[index](x, state, resets_BT)
    return self.drop(x), state

  def apply_final_norm(self, x: Array) -> Array:
    """Map the output of the last layer to hidden_BTD; the identity here."""
    return x

  @nn.nowrap
  def _unbound_layers(self) -> Sequence[tuple[Layer, int]]:
    """Return layers without variables, each with the width of its inputs."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    layers = [make(parent=None, **dtypes) for make in self.make_layers]
    widths = [self.embedding_width, *(layer.width for layer in layers)]
    return list(zip(layers, widths, strict=False))

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> tuple[State, ...]:
    """Return empty states; their size does not depend on `capacity`."""
    del capacity
    return tuple(
      layer.initial_state(batch_size, inputs)
      for layer, inputs in self._unbound_layers()
    )

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["Stack", PyTree]:
    """Lay out each layer for decoding steps; see LanguageModel."""
    model, variables = super().for_decoding(variables, batch_size)
    params, makers = dict(variables["params"]), []
    for index, (layer, _) in enumerate(self._unbound_layers()):
      name = f"layer_{index}"
      make, params[name] = layer.for_decoding(params[name], batch_size)
      makers.append(make)
    model = model.clone(make_layers=tuple(makers))
    return model, {**variables, "params": params}

  @nn.nowrap
  def resolve_auto(self, with_resets: bool) -> dict[str, str]:
    """Return what "auto" resolves to in the layers, by config key."""
    resolved = {}
    for layer, _ in self._unbound_layers():
      resolved.update(layer.resolve_auto(with_resets))
    return resolved

  @nn.nowrap
  def flops_per_token(self, seq_len: int) -> int:
    """Return the matmul FLOPs per token of the forward pass."""
    del seq_len
    layers = self._unbound_layers()
    output = 2 * layers[-1][0].width * self.vocab_size
    return output + sum(
      layer.flops_per_token(inputs) for layer, inputs in layers
    )
