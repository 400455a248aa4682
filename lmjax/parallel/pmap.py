# SPDX-License-Identifier: Apache-2.0
"""One program a device: pmap, with sums over devices written in the step."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lmjax.errors import UserError
from lmjax.parallel.rules import Rule, with_sharding
from lmjax.train_state import TrainState
from lmjax.types import Array, Batch, PyTree

AXIS = "devices"


class PmapStrategy:
  """Data parallelism with all parameters on every device.

  On the devices, rows carry a leading axis of devices; everything else of the
  state is whole on each of them.

  Args:
    devices: the devices to use, of all processes.
    fsdp: must be 1.
    rules: not used, since nothing is spread.
  """

  def __init__(
    self, devices: Sequence[jax.Device], fsdp: int, rules: Sequence[Rule]
  ):
    del rules
    if fsdp != 1:
      raise UserError(
        f"parallel.fsdp={fsdp} needs parallel.strategy=jit; pmap holds all "
        "parameters on every device."
      )
    self.num_devices = len(devices)
    self._devices = list(devices)
    mesh = jax.make_mesh(
      (len(devices),), (AXIS,), devices=devices, axis_types=(AxisType.Auto,)
    )
    self._rows = NamedSharding(mesh, PartitionSpec(AXIS))
    self._whole = NamedSharding(mesh, PartitionSpec())

  def _split(self, leaf: Array) -> Array:
    return leaf.reshape(self.num_devices, -1, *leaf.shape[1:])

  def create(self, make_state: Callable[[], TrainState]) -> TrainState:
    """Make a state on all devices."""
    return self.place(jax.jit(make_state)())

  def target(self, make_state: Callable[[], TrainState]) -> TrainState:
    """Describe a collected state, for a checkpoint to be restored into."""
    state = jax.eval_shape(make_state)
    return jax.tree.map(lambda leaf: with_sharding(leaf, self._whole), state)

  def place(self, state: TrainState) -> TrainState:
    """Put a collected state on the devices."""
    carry = jax.tree.map(self._split, state.carry)
    whole = jax.device_put(state.replace(carry=None), self._whole)
    return whole.replace(carry=jax.device_put(carry, self._rows))

  def collect(self, state: TrainState) -> TrainState:
    """Return a state as checkpoints store it: rows without the devices."""

    def join(leaf: Array) -> Array:
      return leaf.reshape(-1, *leaf.shape[2:])

    return state.replace(carry=jax.tree.map(join, state.carry))

  def shard_batch(self, batch: Batch) -> Batch:
    """Make arrays [devices, rows a device, ...] of this process's rows."""
    local = self.num_devices // jax.process_count()
    return {
      name: jax.make_array_from_process_local_data(
        self._rows, np.reshape(rows, (local, -1, *np.shape(rows)[1:]))
      )
      for name, rows in batch.items()
    }

  def compile_step(
    self,
    step: Callable[..., tuple[TrainState, PyTree]],
    state: TrainState,
    donate: bool = True,
  ) -> Callable[[TrainState, Batch], tuple[TrainState, PyTree]]:
    """Compile `step(state, batch, all_reduce=...)`; see JitStrategy."""
    axes = TrainState(None, None, None, None, 0, None)
    del state

    def one_device(state: TrainState, batch: Batch):
      key = jax.random.fold_in(state.key, jax.lax.axis_index(AXIS))
      new_state, sums = step(
        state.replace(key=key),
        batch,
        all_reduce=functools.partial(jax.lax.psum, axis_name=AXIS),
      )
      return new_state.replace(key=state.key), sums

    return jax.pmap(
      one_device,
      axis_name=AXIS,
      in_axes=(axes, 0),
      out_axes=(axes, None),
      devices=self._devices,
      donate_argnums=0 if donate else (),
    )
