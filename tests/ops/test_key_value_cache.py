# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np

from lmjax.ops.key_value_cache import (
  append,
  document_starts,
  empty_cache,
  slot_positions,
)


def test_slot_positions_as_documented():
  positions = slot_positions(jnp.array([2, 5]), 4)
  np.testing.assert_array_equal(positions, [[0, 1, -2, -1], [4, 1, 2, 3]])


def test_document_starts_as_documented():
  starts = document_starts(
    jnp.array([[4, 5, 6]]), jnp.array([1]), jnp.array([[False, True, False]])
  )
  np.testing.assert_array_equal(starts, [[1, 5, 5]])


def test_a_ring_holds_the_newest_tokens_whatever_the_pieces():
  """Every slot holds the token that slot_positions says it holds."""
  capacity, total = 4, 11
  values = jnp.arange(total, dtype=jnp.float32).reshape(1, 1, total, 1, 1)
  for sizes in ([11], [1] * 11, [3, 5, 1, 2], [4, 7]):
    cache = empty_cache(1, 1, capacity, 1, 1, jnp.float32)
    start = 0
    for size in sizes:
      piece = values[:, :, start : start + size]
      starts = jnp.zeros((1, size), jnp.int32)
      cache = append(cache, piece, -piece, starts)
      start += size
    held = slot_positions(cache.length_B, capacity)[0]
    np.testing.assert_array_equal(cache.key_BLCGK[0, 0, :, 0, 0], held)
    np.testing.assert_array_equal(cache.value_BLCGK[0, 0, :, 0, 0], -held)
    assert sorted(np.array(held)) == [7, 8, 9, 10]
