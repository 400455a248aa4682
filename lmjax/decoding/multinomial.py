# SPDX-License-Identifier: Apache-2.0
"""Multinomial sampling with two random numbers a row."""

import jax
import jax.numpy as jnp

from lmjax.types import Array

_BLOCK = 256  # tokens of a block; the cost is that of V / 256 + 256 additions


def draw(keys_B: Array, logits_BV: Array) -> Array:
  """Draw a token a row from the softmax of its logits.

  The inverse of the distribution function, in two levels: a block of tokens is
  drawn by its mass, then a token of it by its own. Each level has a random
  number for itself, so that float32 resolves the rarest tokens of the largest
  vocabulary. The Gumbel-max trick would make V random numbers, which takes as
  long as the rest of a decoding step.

  Args:
    keys_B: a key a row; what a row draws depends on its own alone.
    logits_BV: −inf for what must not be drawn; see filters.Ban for a row of
      which nothing else is left.

  Returns:
    int32 tokens [B], below V whatever the logits are.
  """
  batch, vocab_size = logits_BV.shape
  highest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
  mass_BV = jnp.exp(logits_BV - highest_B1)
  padding = -vocab_size % _BLOCK
  mass = jnp.pad(mass_BV, ((0, 0), (0, padding))).reshape(batch, -1, _BLOCK)
  uniform_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_B)
  block_B = _invert(jnp.sum(mass, axis=-1), uniform_B2[:, 0])
  within = jnp.take_along_axis(mass, block_B[:, None, None], axis=1)[:, 0]
  token_B = block_B * _BLOCK + _invert(within, uniform_B2[:, 1])
  return jnp.minimum(token_B, vocab_size - 1)


def _invert(mass_BN: Array, uniform_B: Array) -> Array:
  """Find where the running sum of masses passes a share of the total."""
  total_BN = jnp.cumsum(mass_BN, axis=-1)
  target_B1 = uniform_B[:, None] * total_BN[:, -1:]
  possible_BN = mass_BN > 0
  passed_BN = (total_BN > target_B1) & possible_BN
  last_B = mass_BN.shape[-1] - 1 - jnp.argmax(possible_BN[:, ::-1], axis=-1)
  found_B = jnp.any(passed_BN, axis=-1)  # rounding may leave the target above
  chosen_B = jnp.where(found_B, jnp.argmax(passed_BN, axis=-1), last_B)
  return chosen_B.astype(jnp.int32)
