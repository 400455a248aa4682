# SPDX-License-Identifier: Apache-2.0
"""Layers with a state on a residual stream."""

import functools

import jax.numpy as jnp
from ml_collections import ConfigDict

from lmjax.layers.feedforward import FEED_FORWARDS
from lmjax.layers.norms import NORMS, normalization
from lmjax.layers.stateful import FeedForwardLayer
from lmjax.models.choices import check_choice
from lmjax.models.stack import Stack, State
from lmjax.types import Array


class ResidualStack(Stack):
  """A stack whose layers read a normalized stream and add to it.

  Pre-norm residual layers, as Transformers have them; a norm before the output
  too. Dropout is on the embeddings and on what layers add. A layer that makes
  the stream wider or narrower replaces it.

  Attributes:
    norm: one of NORMS, or "none".
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
    """Add what a layer makes of the stream."""
    normed = x if self.norm == "none" else self.norms[index](x)
    y, state = self.layers[index](normed, state, resets_BT)
    y = self.drop(y)
    return y if y.shape != x.shape else x + y, state

  def finish(self, x: Array) -> Array:
    """Normalise the stream."""
    return x if self.norm == "none" else self.final_norm(x)


def residual_scale(model: ConfigDict, inputs: int) -> float:
  """Return the deviation of kernels of so many inputs that add to the stream.

  What 2 · num_layers of them add has the variance of one (Radford et al. 2019).
  """
  return (2 * model.num_layers * inputs) ** -0.5


def feed_forward(
  model: ConfigDict, expansion: float = 4, use_bias: bool = False
) -> tuple:
  """Return what makes the feed-forward layer of each block, if there is one."""
  check_choice(model, "feed_forward", (*FEED_FORWARDS, "none"))
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
  """Make a model of layers that are as wide as the stream.

  Raises:
    UsageError: if model.norm is not known.
  """
  check_choice(model, "norm", (*NORMS, "none"))
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
