# SPDX-License-Identifier: Apache-2.0
"""Multinomial sampling with few random numbers.

`sample` is used by the generation loop; `multinomial` has the contract of
torch.multinomial.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.types import Array

# Tokens of a block. A sample costs about V / 256 + 256 additions; the best size
# is √V, which is 256 for a vocabulary of 65,536.
_BLOCK = 256


def sample(keys_B: Array, logits_BV: Array) -> Array:
  """Sample a token per row from the softmax of its logits.

  This inverts the distribution function in two levels: a block of tokens is
  sampled by its total probability, then a token of the block. Each level has
  its own random number, so that float32 resolves the rarest tokens of large
  vocabularies. The Gumbel-max trick would need V random numbers, which take as
  long as the rest of a decoding step.

  Args:
    keys_B: one random key per row; a row depends on its own key only.
    logits_BV: −inf for tokens that must not be sampled; at least one is finite
      (see SuppressTokens).

  Returns:
    int32 tokens [B], below V whatever the logits are.
  """
  highest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
  uniform_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_B)
  return _select(jnp.exp(logits_BV - highest_B1), uniform_B2)


def multinomial(
  weights: Array, num_samples: int, replacement: bool = False, *, key: Array
) -> Array:
  """Sample indices by weight, with the contract of torch.multinomial.

  Samples without replacement are the indices of the largest log-weights with
  Gumbel noise, in the order of sampling (Kool et al. 2019, arXiv:1903.06059).

  Args:
    weights: [V] or [B, V]; rows need not sum to one. An index of weight zero is
      never sampled while others are left.
    num_samples: number of samples per row.
    replacement: whether an index may be sampled again.
    key: a random key.

  Returns:
    int32 [num_samples] or [B, num_samples].

  Raises:
    ValueError: if weights are negative, not finite or all zero, or if there
      are fewer non-zero ones than samples without replacement. Under jit only
      shapes are checked.
  """
  weights = jnp.asarray(weights, jnp.float32)
  _check(weights, num_samples, replacement)
  mass_BV = jnp.atleast_2d(weights)
  mass_BV /= jnp.max(mass_BV, axis=-1, keepdims=True)
  if replacement:
    uniform_BN2 = jax.random.uniform(key, (len(mass_BV), num_samples, 2))
    sampled_BN = jax.vmap(_select, (None, 1), 1)(mass_BV, uniform_BN2)
  else:
    noise_BV = jax.random.gumbel(key, mass_BV.shape, mode="high")
    _, sampled_BN = jax.lax.top_k(jnp.log(mass_BV) + noise_BV, num_samples)
  return sampled_BN.astype(jnp.int32).reshape(*weights.shape[:-1], num_samples)


def _check(weights: Array, num_samples: int, replacement: bool) -> None:
  """Check that `num_samples` can be sampled."""
  if weights.ndim not in (1, 2) or 0 in weights.shape:
    raise ValueError(f"weights of shape {weights.shape} must be [V] or [B, V].")
  if num_samples < 1:
    raise ValueError(f"num_samples={num_samples} must be at least 1.")
  available = weights.shape[-1]
  if not isinstance(weights, jax.core.Tracer):
    if not np.isfinite(weights).all() or np.min(weights) < 0:
      raise ValueError("weights must be finite and at least 0.")
    available = np.count_nonzero(weights, axis=-1).min()
    if not available:
      raise ValueError("each row of weights must have a positive weight.")
  if not replacement and num_samples > available:
    raise ValueError(
      f"num_samples={num_samples} must be at most {available}, the number of "
      "non-zero weights; use replacement=True for more."
    )


def _select(mass_BV: Array, uniform_B2: Array) -> Array:
  """Select a block, and a token of it, by one number in [0, 1) each."""
  batch, vocab_size = mass_BV.shape
  padding = -vocab_size % _BLOCK
  mass = jnp.pad(mass_BV, ((0, 0), (0, padding))).reshape(batch, -1, _BLOCK)
  block_B = _invert(jnp.sum(mass, axis=-1), uniform_B2[:, 0])
  within = jnp.take_along_axis(mass, block_B[:, None, None], axis=1)[:, 0]
  token_B = block_B * _BLOCK + _invert(within, uniform_B2[:, 1])
  return jnp.minimum(token_B, vocab_size - 1)


def _invert(mass_BN: Array, uniform_B: Array) -> Array:
  """Return where the running sum first exceeds a fraction of the total."""
  total_BN = jnp.cumsum(mass_BN, axis=-1)
  target_B1 = uniform_B[:, None] * total_BN[:, -1:]
  possible_BN = mass_BN > 0
  passed_BN = (total_BN > target_B1) & possible_BN
  last_B = mass_BN.shape[-1] - 1 - jnp.argmax(possible_BN[:, ::-1], axis=-1)
  # Rounding may leave the target above the last sum.
  found_B = jnp.any(passed_BN, axis=-1)
  index_B = jnp.where(found_B, jnp.argmax(passed_BN, axis=-1), last_B)
  return index_B.astype(jnp.int32)
