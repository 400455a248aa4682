# SPDX-License-Identifier: Apache-2.0
"""What layers with a state have in common; see lmjax.models.stack.Layer."""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.feedforward import FEED_FORWARDS, FeedForward
from lmjax.types import Array, PyTree

State = tuple[Array, ...]  # arrays [B, ...] in float32
# Fields that the maker of a layer sets, not the layer itself.
_OF_THE_MAKER = ("dtype", "param_dtype", "parent", "name")


class StatefulLayer(nn.Module):
  """A layer that runs the same way for one token as for many."""

  @nn.nowrap
  def for_decoding(
    self, params: PyTree, batch_size: int
  ) -> tuple[functools.partial, PyTree]:
    """Leave everything as it is."""
    del batch_size
    fields = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.name not in _OF_THE_MAKER
    }
    return functools.partial(type(self), **fields), params

  @nn.nowrap
  def resolve_auto(self, with_resets: bool) -> dict[str, str]:
    """Leave nothing to be chosen."""
    del with_resets
    return {}


class FeedForwardLayer(StatefulLayer):
  """A feed-forward layer among others; its state is empty.

  Attributes:
    kind: one of FEED_FORWARDS.
    width: width D of what comes in and goes out.
    inner_width: width F between.
    use_bias: whether it has biases.
    init_scale: standard deviation of the first kernels.
    out_scale: standard deviation of the kernel that writes to the residual.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  kind: str
  width: int
  inner_width: int
  use_bias: bool
  init_scale: float
  out_scale: float
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTD: Array, state: State, resets_BT: Array | None
  ) -> tuple[Array, State]:
    """Transform each position by itself."""
    del resets_BT
    layer = FeedForward(
      self.kind,
      self.inner_width,
      use_bias=self.use_bias,
      init_scale=self.init_scale,
      out_scale=self.out_scale,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="feed_forward",
    )
    return layer(x_BTD), state

  @nn.nowrap
  def initial_state(self, batch_size: int, inputs: int) -> State:
    """Make an empty state."""
    del batch_size, inputs
    return ()

  @nn.nowrap
  def flops_per_token(self, inputs: int) -> int:
    """Count multiply–adds times two of the matmuls of one forward token."""
    kernels = 3 if FEED_FORWARDS[self.kind].gated else 2
    return 2 * kernels * inputs * self.inner_width
