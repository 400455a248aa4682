# SPDX-License-Identifier: Apache-2.0
"""One program over all devices: jit on a mesh, collectives by the compiler."""

from collections.abc import Callable, Mapping, Sequence

import jax
from jax.sharding import NamedSharding, PartitionSpec

from lmjax.ops.layout import MESH_AXES
from lmjax.parallel.mesh import make_mesh, mesh_sizes
from lmjax.parallel.rules import (
  Rule,
  check_rules,
  tree_shardings,
  with_sharding,
)
from lmjax.train_state import TrainState
from lmjax.types import Batch, PyTree


class JitStrategy:
  """Data parallelism, with parameters sharded over the axis "fsdp".

  The rows of batch and carry are divided over all axes of MESH_AXES["B"];
  parameters and moments follow the rules (ZeRO, Rajbhandari et al. 2020,
  arXiv:1910.02054).

  Args:
    devices: the devices to use, of all processes.
    mesh: size of each mesh axis; one −1 takes the remaining devices.
    rules: pairs of a regular expression on parameter paths and the mesh axes of
      the last dimensions; the first match counts.
  """

  def __init__(
    self,
    devices: Sequence[jax.Device],
    mesh: Mapping[str, int],
    rules: Sequence[Rule] = (),
  ):
    self.num_devices = len(devices)
    self._mesh = make_mesh(devices, mesh_sizes(mesh, len(devices)))
    self._rules = rules
    batch_axes = tuple(a for a in MESH_AXES["B"] if a in self._mesh.shape)
    self._rows = NamedSharding(self._mesh, PartitionSpec(batch_axes))
    self._whole = NamedSharding(self._mesh, PartitionSpec())

  def shardings(self, state: TrainState) -> TrainState:
    """Return the sharding of every array of a state, or of its shapes.

    Raises:
      UserError: if a rule does not fit the parameters; see `check_rules`.
    """
    check_rules(state.params, self._rules, self._mesh)
    shardings = tree_shardings(state, self._rules, self._mesh)
    carry = jax.tree.map(lambda _: self._rows, state.carry)
    return shardings.replace(carry=carry)

  def create(self, make_state: Callable[[], TrainState]) -> TrainState:
    """Create a state sharded, so that no device ever holds all of it."""
    shardings = self.shardings(jax.eval_shape(make_state))
    return jax.jit(make_state, out_shardings=shardings)()

  def target(self, make_state: Callable[[], TrainState]) -> TrainState:
    """Describe a gathered state, into which a checkpoint is restored."""
    state = jax.eval_shape(make_state)
    return jax.tree.map(with_sharding, state, self.shardings(state))

  def device_put(self, state: TrainState) -> TrainState:
    """Put a gathered state on the devices."""
    return jax.device_put(state, self.shardings(state))

  def gather(self, state: TrainState) -> TrainState:
    """Return a state as checkpoints store it, which is the same here."""
    return state

  def shard_batch(self, batch: Batch) -> Batch:
    """Make global arrays of the rows of this process."""
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
      step: a pure function that returns a state and metrics.
      state: a state of the shapes that the step will get.
      donate: whether the step may reuse the memory of its input state.
    """

    def whole_batch(state: TrainState, batch: Batch):
      # Tells lmjax.ops.layout which axes divide the batch.
      with jax.sharding.use_abstract_mesh(self._mesh.abstract_mesh):
        return step(state, batch, all_reduce=lambda tree: tree)

    return jax.jit(
      whole_batch,
      donate_argnums=0 if donate else (),
      out_shardings=(self.shardings(state), self._whole),
    )
