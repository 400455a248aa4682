# SPDX-License-Identifier: Apache-2.0
"""One program over all devices: jit on a mesh, collectives by the compiler."""

from collections.abc import Callable, Sequence

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lmjax.errors import UserError
from lmjax.parallel.rules import Rule, tree_shardings, with_sharding
from lmjax.train_state import TrainState
from lmjax.types import Batch, PyTree

BATCH_AXES = ("data", "fsdp")


class JitStrategy:
  """Data parallelism with parameters spread over the "fsdp" axis.

  Batch and carry are cut by rows over both mesh axes; parameters and moments
  follow the rules (Rajbhandari et al. 2020, arXiv:1910.02054).

  Args:
    devices: the devices to use, of all processes.
    fsdp: size of the "fsdp" axis; the rest is "data".
    rules: (regular expression on paths, mesh axes of the last dimensions).
  """

  def __init__(
    self, devices: Sequence[jax.Device], fsdp: int, rules: Sequence[Rule]
  ):
    if len(devices) % fsdp:
      raise UserError(
        f"parallel.fsdp={fsdp} must divide the number of devices, "
        f"{len(devices)}."
      )
    self.num_devices = len(devices)
    self._mesh = jax.make_mesh(
      (len(devices) // fsdp, fsdp),
      BATCH_AXES,
      devices=devices,
      axis_types=(AxisType.Auto,) * 2,  # Linen's gathers fail under Explicit
    )
    self._rules = rules
    self._rows = NamedSharding(self._mesh, PartitionSpec(BATCH_AXES))
    self._whole = NamedSharding(self._mesh, PartitionSpec())

  def shardings(self, state: TrainState) -> TrainState:
    """Give every array of a state, or its shape, its sharding."""
    shardings = tree_shardings(state, self._rules, self._mesh)
    carry = jax.tree.map(lambda _: self._rows, state.carry)
    return shardings.replace(carry=carry)

  def create(self, make_state: Callable[[], TrainState]) -> TrainState:
    """Make a state where it is to live, so that it is never whole anywhere."""
    shardings = self.shardings(jax.eval_shape(make_state))
    return jax.jit(make_state, out_shardings=shardings)()

  def target(self, make_state: Callable[[], TrainState]) -> TrainState:
    """Describe a collected state, for a checkpoint to be restored into."""
    state = jax.eval_shape(make_state)
    return jax.tree.map(with_sharding, state, self.shardings(state))

  def place(self, state: TrainState) -> TrainState:
    """Put a collected state on the devices."""
    return jax.device_put(state, self.shardings(state))

  def collect(self, state: TrainState) -> TrainState:
    """Return a state as checkpoints store it: as it is."""
    return state

  def shard_batch(self, batch: Batch) -> Batch:
    """Make global arrays of this process's rows."""
    return {
      name: jax.make_array_from_process_local_data(self._rows, rows)
      for name, rows in batch.items()
    }

  def compile_step(
    self,
    step: Callable[..., tuple[TrainState, PyTree]],
    state: TrainState,
    donate: bool = True,
  ) -> Callable[[TrainState, Batch], tuple[TrainState, PyTree]]:
    """Compile `step(state, batch, all_reduce=...)`.

    Args:
      step: a pure function that returns a state and something to read.
      state: a state like the ones that the step will see.
      donate: whether the step may write over the state it is given.
    """

    def whole_batch(state: TrainState, batch: Batch):
      # So that lmjax.ops.layout knows which axes cut the batch.
      with jax.sharding.use_abstract_mesh(self._mesh.abstract_mesh):
        return step(state, batch, all_reduce=lambda tree: tree)

    return jax.jit(
      whole_batch,
      donate_argnums=0 if donate else (),
      out_shardings=(self.shardings(state), self._whole),
    )
