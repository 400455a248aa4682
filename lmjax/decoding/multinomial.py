# SPDX-License-Identifier: Apache-2.0
"""Multinomial sampling: tokens by their probability, with few random numbers.

`draw` is that of the generation loop; `multinomial` is for all else.
"""

import jax
import jax.numpy as jnp
import numpy as np

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
  highest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
  uniform_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_B)
  return _pick(jnp.exp(logits_BV - highest_B1), uniform_B2)


def multinomial(
  weights: Array, num_samples: int, replacement: bool = False, *, key: Array
) -> Array:
  """Draw indices by weights, with the contract of torch.multinomial.

  Without replacement, later draws are from what is left, in the order of
  drawing: the largest of log-weights with Gumbel noise (Kool et al. 2019,
  arXiv:1903.06059).

  Args:
    weights: [V] or [B, V]; rows need not sum to one. What has weight zero is
      never drawn while something else is left.
    num_samples: how many to draw of each row.
    replacement: whether an index may be drawn again.
    key: of jax.random.

  Returns:
    int32 [num_samples] or [B, num_samples].

  Raises:
    ValueError: if weights are negative, not finite or all zero, or if there
      are fewer non-zero ones than draws without replacement. Under jit only
      shapes are looked at.
  """
  weights = jnp.asarray(weights, jnp.float32)
  _check(weights, num_samples, replacement)
  mass_BV = jnp.atleast_2d(weights)
  mass_BV /= jnp.max(mass_BV, axis=-1, keepdims=True)
  if replacement:
    uniform_BN2 = jax.random.uniform(key, (len(mass_BV), num_samples, 2))
    drawn_BN = jax.vmap(_pick, (None, 1), 1)(mass_BV, uniform_BN2)
  else:
    noise_BV = jax.random.gumbel(key, mass_BV.shape, mode="high")
    _, drawn_BN = jax.lax.top_k(jnp.log(mass_BV) + noise_BV, num_samples)
  return drawn_BN.astype(jnp.int32).reshape(*weights.shape[:-1], num_samples)


def _check(weights: Array, num_samples: int, replacement: bool) -> None:
  """See that so many can be drawn."""
  if weights.ndim not in (1, 2) or 0 in weights.shape:
    raise ValueError(f"weights of shape {weights.shape} must be [V] or [B, V].")
  if num_samples < 1:
    raise ValueError(f"num_samples={num_samples} must be at least 1.")
  fewest = weights.shape[-1]
  if not isinstance(weights, jax.core.Tracer):
    if not np.isfinite(weights).all() or np.min(weights) < 0:
      raise ValueError("weights must be finite and at least 0.")
    fewest = np.count_nonzero(weights, axis=-1).min()
    if not fewest:
      raise ValueError("a row of weights must not be zero throughout.")
  if not replacement and num_samples > fewest:
    raise ValueError(
      f"num_samples={num_samples} must be at most {fewest}, the number of "
      "non-zero weights, or replacement true."
    )


def _pick(mass_BV: Array, uniform_B2: Array) -> Array:
  """Find a block, and a token of it, by a number in [0, 1) for each."""
  batch, vocab_size = mass_BV.shape
  padding = -vocab_size % _BLOCK
  mass = jnp.pad(mass_BV, ((0, 0), (0, padding))).reshape(batch, -1, _BLOCK)
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
