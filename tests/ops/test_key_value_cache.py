# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.ops.key_value_cache import (
  document_starts,
  empty_cache,
  new_slots,
  slot_positions,
  write,
)


def test_slot_positions_as_documented():
  positions = slot_positions(jnp.array([2, 5]), 4)
  np.testing.assert_array_equal(positions, [[0, 1, -2, -1], [4, 1, 2, 3]])


def test_document_starts_as_documented():
  starts = document_starts(
    jnp.array([[4, 5, 6]]), jnp.array([1]), jnp.array([[False, True, False]])
  )
  np.testing.assert_array_equal(starts, [[1, 5, 5]])


def test_new_slots_as_documented():
  slots = new_slots(jnp.array([2, 5]), 3, 4)
  np.testing.assert_array_equal(slots, [[2, 3, 0], [1, 2, 3]])
  # Of more new tokens than slots, the newest are stored.
  np.testing.assert_array_equal(new_slots(jnp.array([0]), 6, 4), [[2, 3, 0, 1]])


@pytest.mark.parametrize("batch", [1, 2])
def test_a_ring_holds_the_newest_tokens_whatever_the_pieces(batch):
  """Every slot holds the token that slot_positions says it holds."""
  capacity, total = 4, 11
  count = jnp.arange(total, dtype=jnp.float32)
  scale = jnp.arange(1.0, batch * 15 + 1).reshape(batch, 1, 3, 5)
  values = count[None, :, None, None] * scale  # [B, T, G, K]
  for sizes in ([11], [1] * 11, [3, 5, 1, 2], [4, 7]):
    cache = empty_cache(batch, 1, capacity, 3, 5, jnp.float32)
    keys, num_slots = cache.keys_BGCK[0], capacity + 1
    start = 0
    for size in sizes:
      slots = new_slots(jnp.full(batch, start), size, num_slots)
      keys = write(keys, values[:, start : start + size], slots)
      start += size
    held = slot_positions(jnp.array([total]), num_slots)[0]
    expected = held[None, None, :, None] * np.swapaxes(scale, 1, 2)
    np.testing.assert_array_equal(keys, expected)
    assert sorted(np.array(held)) == [6, 7, 8, 9, 10]
