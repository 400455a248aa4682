# SPDX-License-Identifier: Apache-2.0
"""Verify that a killed run resumes exactly as if it had never stopped.

    python scripts/verify_resume.py --config=configs/char_lstm.py

Trains straight through; trains again and is killed (SIGKILL, no goodbye) in
the middle and resumes in a fresh process. Then parameters, optimizer state,
carry, random key and logged losses must agree bit for bit, or the first that
differs is named and the exit code is 1.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import flags
from ml_collections import config_flags

from lmjax.cli import app
from lmjax.errors import UserError
from lmjax.experiment.run_dir import RunDir
from lmjax.training import loop
from lmjax.training.hooks import Session
from lmjax.tree import named_leaves

_CONFIG = config_flags.DEFINE_config_file("config", help_string="Any config.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 24, "Steps to train.")
_CHECKPOINT_STEP = flags.DEFINE_integer("checkpoint_step", 8, "Last stored.")
_KILL_STEP = flags.DEFINE_integer("kill_step", 13, "Killed after this one.")
_CHILD = flags.DEFINE_string("child", None, "Used by this script itself.")
_KILL = flags.DEFINE_bool("kill", False, "Used by this script itself.")
flags.mark_flag_as_required("config")

# Numbers of a record that depend on the clock.
TIMED = {"tokens_per_second", "mfu"}


class KillProcess:
  """A hook that kills the process, as a power failure would."""

  every = 1

  def __call__(self, session: Session) -> None:
    """Kill the process at the given step, once there is a checkpoint."""
    if session.step >= _KILL_STEP.value:
      session.checkpoints.wait()
      os.kill(os.getpid(), signal.SIGKILL)


def child() -> int:
  """Train in the folder `--child`."""
  config = _CONFIG.value
  with config.unlocked():
    config.train.num_steps = _NUM_STEPS.value
    config.train.checkpoint_every = _CHECKPOINT_STEP.value
    config.train.log_every = 3
    config.train.eval_every = _CHECKPOINT_STEP.value
    config.train.eval_batches = 2
    config.train.preview_every = 0
    config.checkpoint.keep_latest = 4
  hooks = [KillProcess()] if _KILL.value else []
  return loop.train(config, _CHILD.value, hooks)


def start(folder: Path, *, kill: bool) -> None:
  """Run a child in a process of its own.

  Raises:
    UserError: if it ends otherwise than it should.
  """
  command = [sys.executable, *sys.argv, f"--child={folder}"]
  ended = subprocess.run(
    command + ["--kill"] * kill, capture_output=True, text=True
  )
  expected = -signal.SIGKILL if kill else 0
  if ended.returncode != expected:
    raise UserError(
      f"training in {folder} ended with exit code {ended.returncode} instead "
      f"of {expected}: {ended.stderr.strip().splitlines()[-1:]}"
    )


def final_leaves(folder: RunDir) -> dict[str, str]:
  """Digest every array of the newest checkpoint and every logged record."""
  with ocp.CheckpointManager(folder.checkpoints) as manager:
    step = manager.latest_step()
    items = dict(
      params=ocp.args.StandardRestore(),
      collections=ocp.args.StandardRestore(),
      training=ocp.args.StandardRestore(),
      progress=ocp.args.JsonRestore(),
    )
    stored = folder.checkpoints / str(step)
    items = {k: v for k, v in items.items() if (stored / k).exists()}
    restored = manager.restore(step, args=ocp.args.Composite(**items))
  leaves = {}
  for item in items:
    for name, leaf in named_leaves(restored[item]).items():
      leaves[f"{item}/{name}"] = digest(leaf)
  for line in folder.metrics.read_text().splitlines():
    record = json.loads(line)
    place = f"metrics.jsonl/{record['split']}/step {record['step']}"
    for name in record.keys() - TIMED:
      leaves[f"{place}/{name}"] = repr(record[name])
  return leaves


def digest(leaf: object) -> str:
  """Digest the bytes, shape and type of an array."""
  if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
    leaf.dtype, jax.dtypes.prng_key
  ):
    leaf = jax.random.key_data(leaf)
  array = np.asarray(leaf)
  content = f"{array.dtype}{array.shape}".encode() + array.tobytes()
  return hashlib.blake2b(content, digest_size=16).hexdigest()


def main() -> int:
  """Train three times and compare."""
  if _CHILD.value:
    return child()
  if not 0 < _CHECKPOINT_STEP.value < _KILL_STEP.value < _NUM_STEPS.value:
    raise UserError(
      "--checkpoint_step must be below --kill_step, and that below --num_steps."
    )
  with tempfile.TemporaryDirectory() as root:
    straight, broken = Path(root, "straight"), Path(root, "broken")
    start(straight, kill=False)
    start(broken, kill=True)
    stored = Path(broken, "checkpoints", str(_CHECKPOINT_STEP.value))
    if not stored.exists():
      raise UserError(f"the killed run left no checkpoint {stored.name}.")
    start(broken, kill=False)
    a = final_leaves(RunDir(straight))
    b = final_leaves(RunDir(broken))
  for name in sorted(a.keys() | b.keys()):
    if a.get(name) != b.get(name):
      print(f"differs: {name}: {a.get(name)} straight, {b.get(name)} resumed")
      return 1
  carried = sum(name.startswith("training/carry") for name in a)
  print(
    f"exact: {len(a)} digests agree ({carried} of them of the carry) after "
    f"{_NUM_STEPS.value} steps, killed at {_KILL_STEP.value}, resumed from "
    f"{_CHECKPOINT_STEP.value}"
  )
  return 0


if __name__ == "__main__":
  app.run(main)
