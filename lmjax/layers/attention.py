# SPDX-License-Identifier: Apache-2.0
"""Causal self-attention over a window and over a key/value cache."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from lmjax.layers.dense import Affine, Dense, Parameters, apply_affine
from lmjax.ops.attention import (
  Sight,
  attend,
  attend_behind,
  attend_in,
  look_back,
)
from lmjax.ops.key_value_cache import (
  KeyValueCache,
  document_starts,
  new_slots,
  slot_positions,
  write,
)
from lmjax.ops.rotary import rotate
from lmjax.types import Array


class View(NamedTuple):
  """What every layer of a decoder may look at; made once a call.

  Attributes:
    positions_BT: positions counted from the start of the token's document.
    starts_BT: where that document began, counted from the row's first token.
    sight: who sees whom over cached and new keys, or over the cache alone for
      one new token a row; None for plain causal.
    slots_BT: where new keys are stored in the cache; None if there is none.
  """

  positions_BT: Array
  starts_BT: Array
  sight: Sight | None
  slots_BT: Array | None


def make_view(
  tokens_BT: Array,
  cache: KeyValueCache | None,
  resets_BT: Array | None,
  window: int,
) -> View:
  """Work out positions and sight for new tokens behind a cache."""
  batch, time = tokens_BT.shape
  seen_B = jnp.zeros(batch, jnp.int32) if cache is None else cache.length_B
  start_B = jnp.zeros(batch, jnp.int32) if cache is None else cache.start_B
  rows_BT = seen_B[:, None] + jnp.arange(time)
  starts_BT = document_starts(rows_BT, start_B, resets_BT)
  sight = slots_BT = None
  if cache is not None:
    num_slots = cache.keys_BGCK[0].shape[2]
    slots_BT = new_slots(seen_B, time, num_slots)
    if time == 1:  # its own key is in the cache by then
      keys_BS = slot_positions(seen_B + 1, num_slots)
    else:
      slots_BC = slot_positions(seen_B, num_slots)
      oldest_B1 = seen_B[:, None] - (num_slots - 1)  # one slot is for the above
      slots_BC = jnp.where(slots_BC < oldest_B1, -1, slots_BC)
      keys_BS = jnp.concatenate([slots_BC, rows_BT], axis=1)
    sight = look_back(rows_BT, starts_BT, keys_BS, window)
  elif resets_BT is not None:
    sight = look_back(rows_BT, starts_BT, window=window)
  return View(rows_BT - starts_BT, starts_BT, sight, slots_BT)


class SelfAttention(nn.Module):
  """Multi-head or grouped-query causal attention.

  Attributes:
    num_heads: number H of query heads; divides the model width.
    num_kv_heads: number G of key and value heads; divides `num_heads`.
    rotary: whether queries and keys are rotated by their positions.
    window: how many of the newest positions are seen; 0 for all.
    use_bias: whether the projections have biases.
    init_scale: standard deviation of the kernels at initialisation.
    out_scale: standard deviation of the kernel that writes to the residual.
    dtype: dtype of the matmuls.
    param_dtype: dtype of the parameters.
  """

  num_heads: int
  num_kv_heads: int
  rotary: bool = False
  window: int = 0
  use_bias: bool = False
  init_scale: float = 0.02
  out_scale: float = 0.02
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTD: Array, view: View, cached: tuple[Array, Array] | None
  ) -> tuple[Array, tuple[Array, Array] | None]:
    """Attend from every position to what its view shows.

    Args:
      x_BTD: inputs.
      view: positions and sight.
      cached: keys and values of the tokens before, [B, G, C, K] each, or None.

    Returns:
      The output, [B, T, D], and the cached keys and values with the new ones
      among them; None if there is no cache.
    """
    head_width = x_BTD.shape[-1] // self.num_heads

    def parameters(heads: int, name: str) -> Parameters:
      return Affine(
        x_BTD.shape[-1:],
        (heads, head_width),
        use_bias=self.use_bias,
        init_scale=self.init_scale,
        param_dtype=self.param_dtype,
        name=name,
      )()

    maps = (
      parameters(self.num_heads, "query"),
      parameters(self.num_kv_heads, "key"),
      parameters(self.num_kv_heads, "value"),
    )
    query_BTHK, key_BTGK, value_BTGK = apply_affine(x_BTD, maps, 1, self.dtype)
    if self.rotary:
      query_BTHK = rotate(query_BTHK, view.positions_BT)
      key_BTGK = rotate(key_BTGK, view.positions_BT)
    new, written = (key_BTGK, value_BTGK), None
    if cached is not None:
      written = tuple(
        write(old, x, view.slots_BT) for old, x in zip(cached, new, strict=True)
      )
    if cached is None:
      attended_BTHK = attend(query_BTHK, *new, view.sight, self.window)
    elif x_BTD.shape[1] == 1:
      attended_BTHK = attend_in(query_BTHK, written, view.sight)
    else:
      attended_BTHK = attend_behind(query_BTHK, *new, cached, view.sight)
    output_BTD = Dense(
      x_BTD.shape[-1:],
      num_contracted=2,
      use_bias=self.use_bias,
      init_scale=self.out_scale,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name="out",
    )(attended_BTHK)
    return output_BTD, written
