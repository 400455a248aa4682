# SPDX-License-Identifier: Apache-2.0
"""Common base of the tasks on records: rows are read whole, without a carry."""

import dataclasses
from typing import Any

import flax.linen as nn

from lmjax.metrics.sums import Sums
from lmjax.tasks.task import Outcome, add_auxiliary_losses
from lmjax.train_state import ModelState
from lmjax.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class RecordTask:
  """A task whose model is applied to a batch; subclasses compute the sums.

  Subclasses also have `predict(variables, batch)`, which returns arrays by
  name, rows first, and `report`; see Task.

  Attributes:
    model: is applied to what `inputs` takes from a batch.
    method: the method of the model that is applied.
  """

  model: nn.Module

  method = "__call__"

  def inputs(self, batch: Batch) -> tuple[Any, ...]:
    """Return the model's inputs from a batch."""
    raise NotImplementedError

  def sums(self, outputs: PyTree, batch: Batch, train: bool) -> Sums:
    """Sum the loss of the model's outputs, and what metrics are made of."""
    raise NotImplementedError

  def init(self, key: Array, batch: Batch) -> PyTree:
    """Return the model's variables, initialized by the shapes of a batch."""
    return self.model.init(key, *self.inputs(batch))

  def initial_carry(self, batch_size: int) -> None:
    """Return no carry."""
    del batch_size

  def apply(self, variables: PyTree, batch: Batch) -> PyTree:
    """Apply the model to a batch, without dropout."""
    return self.model.apply(variables, *self.inputs(batch), method=self.method)

  def loss(
    self,
    params: PyTree,
    model_state: ModelState,
    batch: Batch,
    rngs: dict[str, Array],
    train: bool,
  ) -> Outcome:
    """Sum the loss of a batch; see Task."""
    collections = model_state.collections
    outputs, changed = self.model.apply(
      {"params": params, **collections},
      *self.inputs(batch),
      rngs=rngs if train else None,
      mutable=[*collections, "losses"] if train else [],
      method=self.method,
    )
    sums = add_auxiliary_losses(self.sums(outputs, batch, train), changed)
    state = ModelState({**collections, **changed}, model_state.carry)
    return Outcome(sums, state)
