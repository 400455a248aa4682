# SPDX-License-Identifier: Apache-2.0
"""Numbers for the n-grams of texts, without a vocabulary of them."""

import jax.numpy as jnp

from lmjax.types import Array

PRIME = 116049371  # as fastText's


def ngram_buckets(tokens_BT: Array, order: int, num_buckets: int) -> Array:
  """Hash the n-gram of one order that ends at each token.

  >>> ngram_buckets([[5, 6, 7]], order=2, num_buckets=1000)
  [[-1, h(5, 6), h(6, 7)]]

  Returns:
    int32 [B, T], from 0 on; −1 where too few tokens are before.
  """
  time = tokens_BT.shape[1]
  hash_BT = jnp.zeros(tokens_BT.shape, jnp.uint32)
  for back in reversed(range(order)):
    earlier_BT = jnp.pad(tokens_BT, ((0, 0), (back, 0)))[:, :time]
    hash_BT = hash_BT * jnp.uint32(PRIME) + earlier_BT.astype(jnp.uint32)
  hash_BT = (hash_BT ^ (hash_BT >> 15)) * jnp.uint32(0x2C1B3C6D)
  bucket_BT = (hash_BT ^ (hash_BT >> 12)) % jnp.uint32(num_buckets)
  is_whole_T = jnp.arange(time) >= order - 1
  return jnp.where(is_whole_T, bucket_BT.astype(jnp.int32), -1)
