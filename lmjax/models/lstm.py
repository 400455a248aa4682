# SPDX-License-Identifier: Apache-2.0
"""The LSTM language model."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.errors import UsageError
from lmjax.layers.dropout import Dropout
from lmjax.layers.embeddings import (
  OutputLayer,
  TokenEmbedding,
  Unembedding,
  make_logits,
)
from lmjax.layers.recurrent import (
  IMPLEMENTATIONS,
  RecurrentLayer,
  choose_implementation,
)
from lmjax.ops.cells import State
from lmjax.tree import map_named
from lmjax.types import Array, PyTree


class LSTM(nn.Module):
  """Stacked LSTM layers over token embeddings.

  The medium regularised model of Zaremba et al. 2014 (arXiv:1409.2329):
  dropout on the embeddings, between the layers and before the output, never
  on the recurrence.

  Attributes:
    vocab_size: number of tokens V.
    embedding_width: width E of the token embeddings.
    width: width D of every layer.
    num_layers: number of layers L.
    dropout: share of features dropped.
    tie_embeddings: whether the embedding table makes the logits too; needs
      E = D.
    implementation: how layers run: "auto", "scan" or "cudnn".
    turned: whether the layers' kernels are transposed, for decoding.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  vocab_size: int
  embedding_width: int
  width: int
  num_layers: int
  dropout: float
  tie_embeddings: bool
  implementation: str = "auto"
  turned: bool = False
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  context = None  # the state holds any number of tokens

  def setup(self):
    """Create the layers."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    self.embedding = TokenEmbedding(
      self.vocab_size, self.embedding_width, init_scale=0.1, **dtypes
    )
    self.layers = [
      RecurrentLayer(
        "lstm",
        self.width,
        implementation=self.implementation,
        turned=self.turned,
        name=f"layer_{index}",
        **dtypes,
      )
      for index in range(self.num_layers)
    ]
    self.drop = Dropout(self.dropout)
    if not self.tie_embeddings:
      self.output = OutputLayer(
        self.vocab_size, self.width, param_dtype=self.param_dtype
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
      carry: a state (h_BD, c_BD) a layer; None for empty ones.
      resets_BT: true where the state is emptied before the token.

    Returns:
      hidden_BTD in `dtype`, and the carry after the last token, or None if
      none was given.
    """
    states = carry or self.initial_carry(tokens_BT.shape[0], 0)
    x = self.drop(self.embedding(tokens_BT))
    new_carry = []
    for layer, state in zip(self.layers, states, strict=True):
      x, state = layer(x, state, resets_BT)
      x = self.drop(x)
      new_carry.append(state)
    if self.is_initializing():
      self.unembedding()
    return x, None if carry is None else tuple(new_carry)

  def unembedding(self) -> Unembedding:
    """Return what scores the next token: table_VD, and bias_V or None."""
    layer = self.embedding if self.tie_embeddings else self.output
    return layer.unembedding()

  def logits(self, hidden_BTD: Array) -> Array:
    """Score every next token: [B, T, D] to float32 [B, T, V]."""
    return make_logits(hidden_BTD, self.unembedding())

  @nn.nowrap
  def initial_carry(self, batch_size: int, capacity: int) -> tuple[State, ...]:
    """Make empty states; their size does not depend on `capacity`."""
    del capacity
    return tuple(
      (
        jnp.zeros((batch_size, self.width), jnp.float32),
        jnp.zeros((batch_size, self.width), jnp.float32),
      )
      for _ in range(self.num_layers)
    )

  @nn.nowrap
  def for_decoding(
    self, variables: PyTree, batch_size: int
  ) -> tuple["LSTM", PyTree]:
    """Turn the kernels once, not at every token; one row needs no turning."""
    if batch_size == 1:
      return self, variables

    def turn(name: str, leaf: Array) -> Array:
      return leaf.T if re.search(r"layer_\d+/.*kernel$", name) else leaf

    return self.clone(turned=True), map_named(turn, variables)

  @nn.nowrap
  def choices(self, with_resets: bool) -> dict[str, str]:
    """Name what "auto" stands for here."""
    chosen = choose_implementation(
      self.implementation, "lstm", self.dtype, with_resets
    )
    return dict(implementation=chosen)

  @nn.nowrap
  def flops_per_token(self, window: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""
    del window
    inputs = [self.embedding_width] + [self.width] * (self.num_layers - 1)
    kernels = sum(4 * self.width * (size + self.width) for size in inputs)
    return 2 * (kernels + self.width * self.vocab_size)


def build(config: ConfigDict, vocab_size: int) -> LSTM:
  """Make the model that a config describes.

  Raises:
    UsageError: if the sizes do not fit together.
  """
  model, data = config.model, config.data
  embedding_width = model.embedding_width or model.width
  if model.tie_embeddings and embedding_width != model.width:
    raise UsageError(
      f"model.embedding_width={embedding_width} must equal model.width="
      f"{model.width} when model.tie_embeddings is true."
    )
  if model.implementation not in IMPLEMENTATIONS:
    raise UsageError(
      f"model.implementation={model.implementation} is not known; choose one "
      f"of {', '.join(IMPLEMENTATIONS)}."
    )
  if model.implementation == "cudnn" and (
    jax.default_backend() != "gpu"
    or model.dtype != "float32"
    or data.reset_at_documents
    or data.order == "stateful"
  ):
    raise UsageError(
      "model.implementation=cudnn needs an NVIDIA GPU, model.dtype=float32, "
      "data.reset_at_documents=false and data.order=stateless; choose auto."
    )
  return LSTM(
    vocab_size=vocab_size,
    embedding_width=embedding_width,
    width=model.width,
    num_layers=model.num_layers,
    dropout=model.dropout,
    tie_embeddings=model.tie_embeddings,
    implementation=model.implementation,
    dtype=jnp.dtype(model.dtype),
    param_dtype=jnp.dtype(model.param_dtype),
  )
