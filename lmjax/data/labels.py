# SPDX-License-Identifier: Apache-2.0
"""Labels: names to integers and back."""

from collections.abc import Iterable, Sequence


class Labels:
  """The names of classes, each a number from 0 on.

  Args:
    names: all of them, in the order of their numbers.
  """

  def __init__(self, names: Sequence[str]):
    self.names = tuple(names)
    self._ids = {name: index for index, name in enumerate(self.names)}

  @classmethod
  def train(cls, names: Iterable[str]) -> "Labels":
    """Collect what occurs, in alphabetical order."""
    return cls(sorted(set(names)))

  def __len__(self) -> int:
    """Return how many there are."""
    return len(self.names)

  def __contains__(self, name: str) -> bool:
    """Say whether a name is known."""
    return name in self._ids

  def __getitem__(self, name: str) -> int:
    """Return the number of a name."""
    return self._ids[name]
