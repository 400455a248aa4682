# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest

from lmjax.data.records.tag_schemes import all_tags, spans_of, tables_of
from lmjax.ops.spans import count_spans

N, T = 50, 9


@pytest.mark.parametrize("scheme", ["bio", "bioes", "segmentation"])
def test_counts_are_those_of_spans_read_one_by_one(scheme):
  """Of tags in any order, which also no scheme would write."""
  names = all_tags(["x", "y"], scheme)
  rng = np.random.default_rng(0)
  wanted = rng.integers(0, len(names), (N, T))
  changed = rng.random((N, T)) < 0.3
  predicted = np.where(changed, rng.integers(0, len(names), (N, T)), wanted)
  lengths = rng.integers(0, T + 1, N)
  mask = np.arange(T) < lengths[:, None]
  counts = jax.jit(lambda *rows: count_spans(*rows, tables_of(names, scheme)))(
    predicted, wanted, mask
  )
  found = [
    [
      set(spans_of([names[tag] for tag in row[:length]]))
      for row, length in zip(rows, lengths, strict=True)
    ]
    for rows in (predicted, wanted)
  ]
  assert counts["predicted"] == sum(map(len, found[0]))
  assert counts["labels"] == sum(map(len, found[1]))
  right = sum(len(a & b) for a, b in zip(*found, strict=True))
  assert 0 < counts["correct"] == right < counts["labels"]
