# SPDX-License-Identifier: Apache-2.0
"""Comparison with float64 references; the tolerance follows from rounding."""

import jax
import numpy as np

# A float32 operation rounds to 6e-8. Random weights without a scale, as the
# reference cases have, amplify that by a few hundred over two layers: PyTorch's
# own float32 gradients are off by 5e-6 of their norm. No processor or
# optimization level may decide a test, hence the factor of six above that.
FLOAT32_RTOL = 3e-5


def assert_near_reference(actual, reference, rtol=FLOAT32_RTOL):
  """Compare trees of arrays, each difference relative to its array's norm.

  Gradients that are zero by mathematics (a bias of attention keys) have only
  rounding in them; their difference is compared with a thirtieth of the
  tolerance, relative to the norm of the whole tree.
  """
  leaves = jax.tree.leaves(reference)
  whole = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in leaves))

  def check(path, found, expected):
    limit = rtol * (np.linalg.norm(expected) + whole / 30)
    difference = np.max(np.abs(np.asarray(found, np.float64) - expected))
    name = jax.tree_util.keystr(path)
    assert difference <= limit, f"{name}: {difference:.3g} > {limit:.3g}"

  jax.tree_util.tree_map_with_path(check, actual, reference)
