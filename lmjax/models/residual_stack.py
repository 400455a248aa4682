# SPDX-License-Identifier: Apache-2.0
"""Language models of stateful layers on a residual stream."""

import functools

import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.layers.norms import normalization
from lmjax.layers.stateful import FeedForwardLayer
from lmjax.models.stack import Stack, State
from lmjax.types import Array


class ResidualStack(Stack):
  """A stack of pre-norm residual layers, as those of a Transformer.

  Each layer's input is a normalized residual stream, and its output is added to
  the stream. A final norm precedes the output layer. Dropout is on embeddings
  and layer outputs. A layer whose output has another width than the stream
  replaces it.

  Attributes:
    norm: one of lmjax.layers.norms.NORMS, or "none".
    norm_epsilon: added to variances by the norms; 0 for the default of the
      norm; see lmjax.layers.norms.normalization.
  """

  norm: str = "rms"
  norm_epsilon: float = 0.0

  def setup(self):
    """Create the layers and their norms."""
    super().setup()
    if self.norm == "none":
      return
    norm = normalization(
      self.norm,
      self.norm_epsilon,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    self.norms = [norm(name=f"norm_{i}") for i in range(len(self.make_layers))]
    self.final_norm = norm()

  def apply_layer(
    self, index: int, x: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Add the output of one layer to the residual stream."""
    # A layer that changes the width cannot be residual.
    normed = x if self.norm == "none" else self.norms[index](x)
    y, state = self.layers[index](normed, state, resets_BT)
    y = self.drop(y)
    return y if y.shape != x.shape else x + y, state

  def apply_final_norm(self, x: Array) -> Array:
    """Normalize the residual stream."""
    return x if self.norm == "none" else self.final_norm(x)


def residual_scale(model: ConfigDict, inputs: int) -> float:
  """Return the standard deviation of kernels that write to the residual stream.

  Args:
    model: has `num_layers` blocks of two residual layers each.
    inputs: number of inputs of the kernel.
  """
  # The sum of 2 · num_layers outputs then has the variance of one output at the
  # usual scale 1/√inputs (GPT-2; Radford et al. 2019, section 2.3).
  return (2 * model.num_layers * inputs) ** -0.5


def feed_forward(
  model: ConfigDict, expansion: float = 4, use_bias: bool = False
) -> tuple:
  """Return the constructor of each block's feed-forward layer.

  Returns:
    A tuple of one constructor, or an empty one for model.feed_forward=none.
  """
  if model.feed_forward == "none":
    return ()
  inner_width = model.feed_forward_width or round(expansion * model.width)
  layer = functools.partial(
    FeedForwardLayer,
    kind=model.feed_forward,
    width=model.width,
    inner_width=inner_width,
    use_bias=use_bias,
    init_scale=model.width**-0.5,
    out_scale=residual_scale(model, inner_width),
  )
  return (layer,)


def build_stack(
  model: ConfigDict, vocab_size: int, make_layers: tuple[functools.partial, ...]
) -> ResidualStack:
  """Build a model of layers that are as wide as the residual stream."""
  return ResidualStack(
    vocab_size=vocab_size,
    embedding_width=model.width,
    make_layers=make_layers,
    dropout=model.dropout,
    tie_embeddings=model.tie_embeddings,
    embedding_scale=0.02,
    norm=model.norm,
    norm_epsilon=model.norm_epsilon,
    dtype=jnp.dtype(model.dtype),
    param_dtype=jnp.dtype(model.param_dtype),
  )
