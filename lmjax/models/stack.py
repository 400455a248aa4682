# SPDX-License-Identifier: Apache-2.0
"""Language models that are layers with a state each, one on the other.

Recurrences and causal convolutions alike: a layer turns what comes in and its
state into what goes out and its next state. A family writes its layer and says
here how many there are.
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
  """A Flax module with a state; `dtype` and `param_dtype` are among its fields.

  All but the call are of a layer that is bound to no variables.

  Attributes:
    width: width of what goes out.
  """

  width: int

  def __call__(
    self, x_BTE: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Turn [B, T, E] into [B, T, width], and the state into the next.

    The state is emptied before a token where `resets_BT` is true.
    """

  def initial_state(self, batch_size: int, inputs: int) -> State:
    """Make an empty state for inputs of that width."""

  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple[functools.partial, PyTree]:
    """Return what makes this layer, and its parameters, for single tokens."""

  def choices(self, with_resets: bool) -> dict[str, str]:
    """Name what each "auto" stands for."""

  def flops_per_token(self, inputs: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""


class Stack(LanguageModel):
  """Layers over token embeddings, with dropout before, between and behind.

  The regularization is that of Zaremba et al. 2014 (arXiv:1409.2329): on the
  embeddings, between the layers and before the output, never on a recurrence.

  Attributes:
    vocab_size: number of tokens V.
    embedding_width: width E of the token embeddings.
    make_layers: what makes each layer, from the lowest on; see Layer.
    dropout: share of features dropped.
    tie_embeddings: whether the embedding table makes the logits too; needs
      the last layer's width to be E.
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

  max_context = None  # states hold any number of tokens

  def setup(self):
    """Create the layers."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    self.embedding = TokenEmbedding(
      self.vocab_size,
      self.embedding_width,
      init_scale=self.embedding_scale,
      **dtypes,
    )
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
    """Read tokens from a carry on.

    Args:
      tokens_BT: int tokens.
      carry: a state a layer; None for empty ones.
      resets_BT: true where the state is emptied before the token.

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
    x = self.finish(x)
    if self.is_initializing():
      self.unembedding()
    return x, None if carry is None else tuple(new_carry)

  def embed(self, tokens_BT: Array) -> Array:
    """Make what the first layer reads."""
    return self.drop(self.embedding(tokens_BT))

  def apply_layer(
    self, index: int, x: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Apply a layer and what belongs around it."""
    x, state = self.layers[index](x, state, resets_BT)
    return self.drop(x), state

  def finish(self, x: Array) -> Array:
    """Make hidden_BTD of what the last layer gave."""
    return x

  @nn.nowrap
  def _unbound(self) -> Sequence[tuple[Layer, int]]:
    """Make the layers without variables, each with the width of its inputs."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    layers = [make(parent=None, **dtypes) for make in self.make_layers]
    widths = [self.embedding_width, *(layer.width for layer in layers)]
    return list(zip(layers, widths, strict=False))

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> tuple[State, ...]:
    """Make empty states; their size does not depend on `capacity`."""
    del capacity
    return tuple(
      layer.initial_state(batch_size, inputs)
      for layer, inputs in self._unbound()
    )

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["Stack", PyTree]:
    """Let each layer lay itself out."""
    model, variables = super().for_decoding(variables, batch_size)
    params, makers = dict(variables["params"]), []
    for index, (layer, _) in enumerate(self._unbound()):
      name = f"layer_{index}"
      make, params[name] = layer.for_decoding(params[name], batch_size)
      makers.append(make)
    model = model.clone(make_layers=tuple(makers))
    return model, {**variables, "params": params}

  @nn.nowrap
  def choices(self, with_resets: bool) -> dict[str, str]:
    """Name what "auto" stands for in the layers."""
    chosen = {}
    for layer, _ in self._unbound():
      chosen.update(layer.choices(with_resets))
    return chosen

  @nn.nowrap
  def flops_per_token(self, window: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""
    del window
    layers = self._unbound()
    output = 2 * layers[-1][0].width * self.vocab_size
    return output + sum(
      layer.flops_per_token(inputs) for layer, inputs in layers
    )
