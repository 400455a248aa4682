# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with Orbax: asynchronous and atomic.

A checkpoint has the items

    params           the parameters
    averaged_params  their average, if optim.ema_decay or nt_asgd_every is set
    collections      variables other than parameters
    training         the rest of the train state, such as optimizer moments
    progress         see Progress, as JSON

Empty items are left out. The items are separate, so that sampling reads the
variables without the optimizer moments, which are twice as large.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from lmjax.errors import UsageError, UserError
from lmjax.experiment.progress import Progress
from lmjax.optim.averaging import averaged_params
from lmjax.train_state import TrainState
from lmjax.tree import map_named, named_leaves
from lmjax.types import PyTree

# Orbax logs each checkpoint through absl at level INFO.
logging.getLogger("absl").setLevel(logging.WARNING)


def _score(metrics: dict[str, float]) -> float:
  """Return the score of a checkpoint, lower is better; see Metric.score."""
  return metrics["score"]


def _rest(state: TrainState) -> TrainState:
  """Return the fields of a state that are not stored as separate items."""
  return state.replace(params=None, collections=None)


class Checkpoints:
  """The checkpoints of a run.

  Args:
    folder: their directory; it is created if needed.
    keep_latest: number of the newest checkpoints that are retained.
    keep_best: number of the best that are retained, by `Progress.score`.
  """

  def __init__(self, folder: Path, keep_latest: int = 1, keep_best: int = 0):
    policies = [checkpoint_managers.LatestN(keep_latest)]
    if keep_best:
      policies.append(
        checkpoint_managers.BestN(
          get_metric_fn=_score, reverse=True, n=keep_best
        )
      )
    self.folder = folder
    self._manager = ocp.CheckpointManager(
      folder,
      options=ocp.CheckpointManagerOptions(
        best_fn=_score,
        best_mode="min",
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
      ),
    )

  def steps(self) -> list[int]:
    """Return the steps of all complete checkpoints, in ascending order."""
    return sorted(self._manager.all_steps())

  def latest(self) -> int | None:
    """Return the step of the newest complete checkpoint; None without one."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """Return the step of the best checkpoint, or of the newest.

    The newest is returned if no checkpoint was evaluated.
    """
    step = self._manager.best_step()
    # A checkpoint without an evaluation has the score infinity; see `save`.
    if step is None or math.isinf(_score(self._manager.metrics(step))):
      return self.latest()
    return step

  def choose(self, which: str | int) -> int:
    """Return the step of a checkpoint.

    Args:
      which: "best" by checkpoint.metric, "latest", or a step.

    Raises:
      UserError: if there is no such checkpoint.
    """
    available = self.steps()
    if not available:
      raise UserError(f"{self.folder} holds no checkpoint yet; train longer.")
    if which == "best":
      return self.best()
    if which == "latest":
      return self.latest()
    if str(which) not in map(str, available):
      raise UsageError(
        f"checkpoint={which} is not in {self.folder}; choose best, latest or "
        f"one of {', '.join(map(str, available))}."
      )
    return int(which)

  def save(self, step: int, state: TrainState, progress: Progress) -> None:
    """Write a checkpoint in the background; a repeated step is ignored.

    Args:
      step: the number of completed training steps.
      state: the train state, as `gather` of the strategy returns it. Orbax
        copies it to the host before this method returns, so that the next step
        may donate its buffers.
      progress: what the host needs to resume.
    """
    if step == self.latest():
      return
    items = dict(
      params=state.params,
      averaged_params=averaged_params(state.opt_state),
      collections=state.collections,
      training=_rest(state),
    )
    arguments = {k: ocp.args.StandardSave(v) for k, v in items.items() if v}
    arguments["progress"] = ocp.args.JsonSave(progress.record())
    score = math.inf if progress.score is None else progress.score
    self._manager.save(
      step, args=ocp.args.Composite(**arguments), metrics={"score": score}
    )

  def restore(self, target: TrainState) -> tuple[TrainState, Progress]:
    """Read the newest checkpoint onto devices.

    Args:
      target: a state of jax.ShapeDtypeStructs, whose shardings say where each
        array is placed. They need not be those it was saved with.

    Returns:
      The state and the progress.
    """
    step = self.latest()
    items = dict(
      params=target.params,
      collections=self._stored_sizes(target.collections, step),
      training=_rest(target),
    )
    arguments = {k: ocp.args.StandardRestore(v) for k, v in items.items() if v}
    arguments["progress"] = ocp.args.JsonRestore()
    restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
    state = restored.training.replace(
      params=restored.get("params") or {},
      collections=restored.get("collections") or {},
    )
    return state, Progress(**restored.progress)

  def restore_variables(self, target: TrainState, step: int) -> PyTree:
    """Read only the variables of the model, onto one device.

    The parameters are their average, if the run computed one.

    Args:
      target: a state of jax.ShapeDtypeStructs.
      step: the step of the checkpoint.

    Returns:
      The variables by collection, with "params".

    Raises:
      UserError: if a shape differs from that of the target.
    """
    item = self._params_item(step)
    one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    items = {
      item: target.params,
      "collections": self._stored_sizes(target.collections, step),
    }
    items = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=one_device
      ),
      items,
    )
    arguments = {k: ocp.args.StandardRestore(v) for k, v in items.items() if v}
    try:
      restored = self._manager.restore(
        step, args=ocp.args.Composite(**arguments)
      )
    except ValueError as error:
      reason = str(error).split(". ")[0]
      raise UserError(
        f"the checkpoint of step {step} in {self.folder} does not fit the "
        "config and vocabulary of the run; restore config.json and "
        f"tokenizer.json of the run ({reason})."
      ) from error
    collections = restored.get("collections") or {}
    return {"params": restored.get(item) or {}, **collections}

  def restore_params(self, step: int) -> PyTree:
    """Read only the parameters of a checkpoint, onto one device.

    They are their average, if the run computed one. Paths and shapes are those
    of the checkpoint, so that no model needs to be built.

    Args:
      step: the step of the checkpoint.
    """
    item = self._params_item(step)
    # A model of counts, such as n-grams, has no parameters.
    if not (self.folder / str(step) / item).exists():
      return {}
    stored = ocp.StandardCheckpointHandler().metadata(
      self.folder / str(step) / item
    )
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = map_named(
      lambda _, leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=device
      ),
      stored,
    )
    arguments = {item: ocp.args.StandardRestore(target)}
    restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
    return restored[item]

  def _params_item(self, step: int) -> str:
    """Return the item of the parameters that were evaluated."""
    averaged = (self.folder / str(step) / "averaged_params").exists()
    return "averaged_params" if averaged else "params"

  def _stored_sizes(self, collections: PyTree, step: int) -> PyTree:
    """Return targets with the stored shapes.

    The number of counted n-grams is known only after counting, so the shapes
    of `collections` cannot be derived from the config.
    """
    if not collections:
      return {}
    reader = ocp.StandardCheckpointHandler()
    stored = reader.metadata(self.folder / str(step) / "collections")
    sizes = named_leaves(stored)
    return map_named(
      lambda name, leaf: jax.ShapeDtypeStruct(
        sizes[name].shape, leaf.dtype, sharding=leaf.sharding
      ),
      collections,
    )

  def wait(self) -> None:
    """Wait until all checkpoints are written."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Wait until all checkpoints are written, and release the resources."""
    self.wait()
    self._manager.close()


@contextlib.contextmanager
def open_checkpoint(
  folder: Path, which: str | int
) -> Iterator[tuple[Checkpoints, int]]:
  """Open the checkpoints of a run to read one of them.

  Args:
    folder: their directory.
    which: see `Checkpoints.choose`.

  Yields:
    The checkpoints, and the step of the requested one.

  Raises:
    UserError: if there is no such checkpoint.
  """
  if not folder.exists():
    raise UserError(f"{folder.parent} holds no checkpoint yet; train longer.")
  checkpoints = Checkpoints(folder)
  try:
    yield checkpoints, checkpoints.choose(which)
  finally:
    checkpoints.close()
