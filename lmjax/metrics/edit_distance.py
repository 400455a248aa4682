# SPDX-License-Identifier: Apache-2.0
"""How many changes lie between two sequences (Levenshtein 1966)."""

from collections.abc import Hashable, Sequence


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
  """Count the insertions, deletions and substitutions from one to the other.

  >>> edit_distance("kitten", "sitting")
  3
  """
  start, end_a, end_b = 0, len(a), len(b)
  while start < min(end_a, end_b) and a[start] == b[start]:
    start += 1
  while min(end_a, end_b) > start and a[end_a - 1] == b[end_b - 1]:
    end_a, end_b = end_a - 1, end_b - 1
  row = list(range(end_b - start + 1))
  for i in range(start, end_a):
    before, row[0] = row[0], row[0] + 1
    for j in range(1, len(row)):
      above = row[j]
      change = before + (a[i] != b[start + j - 1])
      row[j] = min(above + 1, row[j - 1] + 1, change)
      before = above
  return row[-1]
