# SPDX-License-Identifier: Apache-2.0
"""What tasks on records have in common: rows are read whole, and forgotten."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmjax.metrics.sums import Sums
from lmjax.tasks.task import Outcome
from lmjax.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class RecordTask:
  """A task whose model answers a batch; a subclass judges the answers.

  It has `predict` and `report` too; see Task.

  Attributes:
    model: answers what `inputs` takes out of a batch.
  """

  model: nn.Module

  answers_by = "__call__"  # the model's method that does it

  def inputs(self, batch: Batch) -> tuple[Any, ...]:
    """Take out of a batch what the model sees."""
    raise NotImplementedError

  def sums(self, answers: PyTree, batch: Batch, train: bool) -> Sums:
    """Sum the loss of what the model answers, and what figures are made of."""
    raise NotImplementedError

  def init(self, key: Array, batch: Batch) -> PyTree:
    """Make the model's variables from the shapes of a batch."""
    return self.model.init(key, *self.inputs(batch))

  def initial_carry(self, batch_size: int) -> None:
    """Remember nothing."""
    del batch_size

  def answer(self, variables: PyTree, batch: Batch) -> PyTree:
    """Let the model answer a batch, without chance."""
    return self.model.apply(
      variables, *self.inputs(batch), method=self.answers_by
    )

  def loss(
    self,
    params: PyTree,
    collections: PyTree,
    carry: PyTree,
    batch: Batch,
    rngs: dict[str, Array],
    train: bool,
  ) -> Outcome:
    """Sum the loss of a batch.

    Auxiliary losses, which models sow into the collection "losses", are means
    over a batch; they are weighed like its rows.
    """
    answers, changed = self.model.apply(
      {"params": params, **collections},
      *self.inputs(batch),
      rngs=rngs if train else None,
      mutable=[*collections, "losses"] if train else [],
      method=self.answers_by,
    )
    sums = self.sums(answers, batch, train)
    auxiliary = jax.tree.leaves(changed.pop("losses", {}))
    added = sums.weight * sum(map(jnp.sum, auxiliary), 0.0)
    sums = sums._replace(loss=sums.loss + added)
    return Outcome(sums, {**collections, **changed}, carry)
