# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np

from lmjax.ops.attention_range import causal_range, run_ends


def test_look_back_as_documented():
  positions, starts = jnp.array([[0, 1, 2, 3]]), jnp.array([[0, 0, 0, 3]])
  lowest = causal_range(positions, starts, window=2).lowest_BT
  np.testing.assert_array_equal(lowest, [[0, 0, 1, 3]])


def test_runs_end_with_their_documents():
  ends = run_ends(
    jnp.array([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]),
    jnp.array([[0, 0, 0, 0, 4], [2, 2, 7, 7, 7]]),
    jnp.array([[1, 1, 0, 1, 1], [1, 1, 1, 1, 0]], bool),
  )
  np.testing.assert_array_equal(ends, [[1, 1, 2, 3, 4], [6, 6, 8, 8, 9]])
