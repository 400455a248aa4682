# SPDX-License-Identifier: Apache-2.0
"""One program per device: pmap, with explicit sums over devices."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lmjax.errors import UserError
from lmjax.ops.layout import PMAP_AXIS
from lmjax.parallel.mesh import mesh_sizes
from lmjax.parallel.rules import Rule, with_sharding
from lmjax.train_state import TrainState
from lmjax.types import Array, Batch, PyTree


class PmapStrategy:
  """Data parallelism with all parameters on every device.

  On the devices, arrays of rows have a leading axis of devices; everything else
  of the state is replicated.

  Args:
    devices: the devices to use, of all processes.
    mesh: sizes of mesh axes; only "data" may exceed 1.
    rules: not used, since nothing is sharded.
  """

  def __init__(
    self,
    devices: Sequence[jax.Device],
    mesh: Mapping[str, int],
    rules: Sequence[Rule] = (),
  ):
    del rules
    sharded = mesh_sizes(mesh, len(devices)) | {"data": 1}
    for axis, size in sharded.items():
      if size != 1:
        raise UserError(
          f"parallel.mesh.{axis}={size} needs parallel.strategy=jit; pmap "
          "replicates all parameters."
        )
    self.num_devices = len(devices)
    self._devices = list(devices)
    mesh = jax.make_mesh(
      (len(devices),),
      (PMAP_AXIS,),
      devices=devices,
      axis_types=(AxisType.Auto,),
    )
    self._rows = NamedSharding(mesh, PartitionSpec(PMAP_AXIS))
    self._whole = NamedSharding(mesh, PartitionSpec())

  def _split(self, leaf: Array) -> Array:
    return leaf.reshape(self.num_devices, -1, *leaf.shape[1:])

  def create(self, make_state: Callable[[], TrainState]) -> TrainState:
    """Create a state on all devices."""
    return self.device_put(jax.jit(make_state)())

  def target(self, make_state: Callable[[], TrainState]) -> TrainState:
    """Describe a gathered state, into which a checkpoint is restored."""
    state = jax.eval_shape(make_state)
    return jax.tree.map(lambda leaf: with_sharding(leaf, self._whole), state)

  def device_put(self, state: TrainState) -> TrainState:
    """Put a gathered state on the devices."""
    carry = jax.tree.map(self._split, state.carry)
    whole = jax.device_put(state.replace(carry=None), self._whole)
    return whole.replace(carry=jax.device_put(carry, self._rows))

  def gather(self, state: TrainState) -> TrainState:
    """Return a state as checkpoints store it, without the axis of devices."""

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
      key = jax.random.fold_in(state.key, jax.lax.axis_index(PMAP_AXIS))
      new_state, sums = step(
        state.replace(key=key),
        batch,
        all_reduce=functools.partial(jax.lax.psum, axis_name=PMAP_AXIS),
      )
      return new_state.replace(key=state.key), sums

    return jax.pmap(
      one_device,
      axis_name=PMAP_AXIS,
      in_axes=(axes, 0),
      out_axes=(axes, None),
      devices=self._devices,
      donate_argnums=0 if donate else (),
    )
