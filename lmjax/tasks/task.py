# SPDX-License-Identifier: Apache-2.0
"""What a task must offer; training and evaluation know nothing else."""

from typing import Any, NamedTuple, Protocol

from lmjax.metrics.sums import Figure, Sums
from lmjax.types import Array, Batch, PyTree


class Outcome(NamedTuple):
  """What a batch did.

  Attributes:
    sums: loss, weight and metrics, summed.
    collections: variables other than parameters, as the batch left them.
    carry: what the model remembers for the next batch; None if stateless.
  """

  sums: Sums
  collections: PyTree
  carry: PyTree


class Task(Protocol):
  """What is learned: a batch turned into sums."""

  def init(self, key: Array, batch: Batch) -> PyTree:
    """Make the model's variables: "params" and other collections."""

  def initial_carry(self, batch_size: int) -> PyTree:
    """Make what the model remembers before the first batch."""

  def loss(
    self,
    params: PyTree,
    collections: PyTree,
    carry: PyTree,
    batch: Batch,
    rngs: dict[str, Array],
    train: bool,
  ) -> Outcome:
    """Turn a batch into sums."""

  def report(self, means: dict[str, Figure]) -> dict[str, Any]:
    """Name what users read, from sums divided by weight.

    Returns:
      Numbers by name, "loss" among them; tables of numbers are dicts, and not
      written into the records of training.
    """
