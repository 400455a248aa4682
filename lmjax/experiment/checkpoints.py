# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with Orbax: asynchronous and atomic.

A checkpoint has the items "params"; "averaged_params" if an average is kept;
"collections" for the variables other than parameters; "training", the rest of
the state; and "progress", as JSON. Empty items are left out. Sampling reads
only the variables, no moments.
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

logging.getLogger("absl").setLevel(logging.WARNING)


def _score(metrics: dict[str, float]) -> float:
  """Return the score of a checkpoint, lower is better; see Metric.score."""
  return metrics["score"]


def _rest(state: TrainState) -> TrainState:
  """Leave out what has items of its own."""
  return state.replace(params=None, collections=None)


class Checkpoints:
  """The checkpoints of a run.

  Args:
    folder: where they are.
    keep_latest: how many of the newest are kept.
    keep_best: how many of the best are kept, by `Progress.score`.
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
    """List the steps of all whole checkpoints."""
    return sorted(self._manager.all_steps())

  def latest(self) -> int | None:
    """Return the newest whole checkpoint's step."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """Return the step of the best checkpoint, else of the newest."""
    step = self._manager.best_step()
    if step is None or math.isinf(_score(self._manager.metrics(step))):
      return self.latest()
    return step

  def choose(self, which: str | int) -> int:
    """Find a step: "best" by validation loss, "latest", or the step itself.

    Raises:
      UserError: if there is none.
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
    """Store a collected state; returns before the files are written."""
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
    """Read the newest checkpoint onto the devices that a target names.

    Args:
      target: a state of jax.ShapeDtypeStructs with shardings.
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
    """Read the model's variables alone, onto one device.

    The parameters are the average of the run, if it kept one.

    Args:
      target: a state of jax.ShapeDtypeStructs.
      step: which checkpoint.

    Raises:
      UserError: if the shapes differ from the target's.
    """
    item = self._learned(step)
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
        "config and vocabulary beside it; restore config.json and "
        f"tokenizer.json of the run ({reason})."
      ) from error
    collections = restored.get("collections") or {}
    return {"params": restored.get(item) or {}, **collections}

  def restore_params(self, step: int) -> PyTree:
    """Read the parameters alone, averaged if the run kept an average.

    They are as they were stored, whatever the model, on one device.
    """
    item = self._learned(step)
    if not (self.folder / str(step) / item).exists():  # a counted model
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

  def _learned(self, step: int) -> str:
    """Name the item of the parameters that are judged."""
    averaged = (self.folder / str(step) / "averaged_params").exists()
    return "averaged_params" if averaged else "params"

  def _stored_sizes(self, collections: PyTree, step: int) -> PyTree:
    """Give targets the shapes that were stored: counts have any size."""
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
    """Wait until everything is written."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Wait until everything is written, and end."""
    self.wait()
    self._manager.close()


@contextlib.contextmanager
def open_checkpoint(
  folder: Path, which: str | int
) -> Iterator[tuple[Checkpoints, int]]:
  """Open the checkpoints of a run to read one of them.

  Args:
    folder: where they are.
    which: see `Checkpoints.choose`.

  Raises:
    UserError: if there is none.
  """
  if not folder.exists():
    raise UserError(f"{folder.parent} holds no checkpoint yet; train longer.")
  checkpoints = Checkpoints(folder)
  try:
    yield checkpoints, checkpoints.choose(which)
  finally:
    checkpoints.close()
