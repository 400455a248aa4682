# SPDX-License-Identifier: Apache-2.0
"""Labels: names to integers and back."""

import collections
from collections.abc import Iterable, Sequence


class Labels:
  """The names of classes, each a number from 0 on.

  Args:
    names: all of them, in the order of their numbers.
    counts: how often each occurs in the split train; empty if not known.
  """

  def __init__(self, names: Sequence[str], counts: Sequence[int] = ()):
    self.names, self.counts = tuple(names), tuple(counts)
    self._ids = {name: index for index, name in enumerate(self.names)}

  @classmethod
  def train(cls, names: Iterable[str]) -> "Labels":
    """Collect what occurs, in alphabetical order."""
    counts = sorted(collections.Counter(names).items())
    return cls([name for name, _ in counts], [count for _, count in counts])

  @property
  def record(self) -> dict:
    """Return all that is needed to make the same ones."""
    return dict(names=list(self.names), counts=list(self.counts))

  def __len__(self) -> int:
    """Return how many there are."""
    return len(self.names)

  def __contains__(self, name: str) -> bool:
    """Say whether a name is known."""
    return name in self._ids

  def __getitem__(self, name: str) -> int:
    """Return the number of a name."""
    return self._ids[name]
