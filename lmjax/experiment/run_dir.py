# SPDX-License-Identifier: Apache-2.0
"""The directory of a run: its files, and the rules for writing to it.

    config.json       the config as the user gave it
    tokenizer.json    built once by a new run, then only loaded
    corpus.json       fingerprints and sizes of the data and the tokenizer
    teacher.npy       logits of the teacher, for a distilled run
    environment.json  versions, devices and command of the last start
    metrics.jsonl     one record per line; the source of truth
    events/           TensorBoard's copy of the metrics
    checkpoints/      Orbax
    cache/            encoded data, unless data.cache_dir names a directory

Only the lock and the cache are written before the whole config is checked, so
that a mistake in a config leaves no run directory that looks like a run.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from lmjax.config.compatibility import (
  from_json,
  incompatible,
  to_json,
  with_new_keys,
)
from lmjax.data.tokenizers import Tokenizer
from lmjax.data.vocabularies import load
from lmjax.errors import UserError

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")


class RunDir:
  """The files of a run directory.

  Args:
    path: the directory; it need not exist.
  """

  def __init__(self, path: str | Path):
    self.path = Path(path).expanduser().resolve()
    self.config = self.path / "config.json"
    self.tokenizer = self.path / "tokenizer.json"
    self.corpus = self.path / "corpus.json"
    self.teacher = self.path / "teacher.npy"
    self.environment = self.path / "environment.json"
    self.metrics = self.path / "metrics.jsonl"
    self.events = self.path / "events"
    self.checkpoints = self.path / "checkpoints"
    self.cache = self.path / "cache"
    self._lock = self.path / "lock"

  def has_checkpoint(self) -> bool:
    """Return whether a checkpoint exists.

    Without one, a run has nothing to resume: its other files may be rebuilt.
    """
    folder = self.checkpoints
    # Orbax renames a checkpoint to its step once all its files are written.
    return folder.exists() and any(p.name.isdigit() for p in folder.iterdir())

  @contextlib.contextmanager
  def lock(self) -> Iterator[None]:
    """Lock the directory against other runs, and create it if needed.

    The kernel releases the lock when the process ends, however it ends.

    Raises:
      UserError: if another run has locked it, it contains files that are not of
        a run, or it cannot be created.
    """
    if jax.process_index():  # the first process locks it for all processes
      yield
      return
    try:
      self._check_ours()
      self.path.mkdir(parents=True, exist_ok=True)
      file = open(self._lock, "w")
    except OSError as error:
      raise UserError(
        f"--workdir={self.path} cannot be written: {error.strerror}."
      ) from error
    with file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError:
        raise UserError(
          f"another run holds {self.path}; wait for it or choose another "
          "--workdir."
        ) from None
      yield

  def _check_ours(self) -> None:
    """Check that the directory is empty, or that of a run.

    Raises:
      UserError: if it has other files.
    """
    if self._lock.exists() or not self.path.exists():
      return
    files = sorted(p.name for p in self.path.iterdir())
    if files and not self.config.exists():
      raise UserError(
        f"{self.path} is not a run directory and contains {files[0]}; choose "
        "an empty or a new --workdir."
      )

  def check(self, config: ConfigDict) -> None:
    """Check that a config can resume the run in this directory.

    Raises:
      UserError: naming the keys that must not change; see MAY_CHANGE.
    """
    changes = (
      incompatible(self.load_config(), config) if self.has_checkpoint() else {}
    )
    if changes:
      named = ", ".join(
        f"{key} (was {old}, is {new})" for key, (old, new) in changes.items()
      )
      raise UserError(
        f"{self.path} holds a run with another config: {named}; undo that or "
        "choose another --workdir."
      )

  def load_tokenizer(self) -> Tokenizer:
    """Load the tokenizer that the run started with.

    Raises:
      UserError: if the file cannot be parsed, or is that of another run.
    """
    tokenizer = load(self.tokenizer)
    # Token ids of another vocabulary would select wrong rows of the embedding
    # without any error.
    if tokenizer.fingerprint != self.load_corpus()["tokenizer"]:
      raise UserError(
        f"{self.tokenizer} has another vocabulary than the checkpoints beside "
        "it; restore the run's own file."
      )
    return tokenizer

  def load_corpus(self) -> dict:
    """Read the description of the data that the run started with.

    Returns:
      The value of `Experiment.describe_corpus`.

    Raises:
      UserError: if the file cannot be parsed.
    """
    try:
      return json.loads(self.corpus.read_text())
    except (OSError, ValueError) as error:
      raise UserError(
        f"{self.corpus} cannot be read; restore the run's own file."
      ) from error

  def check_corpus(self, fingerprints: dict[str, str]) -> None:
    """Check that the data are still those that the run started with.

    Args:
      fingerprints: digests of the splits.

    Raises:
      UserError: if they differ.
    """
    if (
      self.has_checkpoint()
      and self.load_corpus()["fingerprints"] != fingerprints
    ):
      raise UserError(
        f"the corpus has changed since the run in {self.path} started; restore "
        "it or choose another --workdir."
      )

  def write(
    self, config: ConfigDict, tokenizer: Tokenizer, corpus: dict
  ) -> None:
    """Write the files that describe the run.

    The first process writes; the others wait for it, since they read the files.

    Args:
      config: the config as the user gave it.
      tokenizer: is stored if the run is new.
      corpus: see `Experiment.describe_corpus`; is stored if the run is new.
    """
    if jax.process_index() == 0:
      if not self.has_checkpoint():
        tokenizer.save(self.tokenizer)
        _write(self.corpus, json.dumps(corpus, indent=2) + "\n")
      environment = describe_environment()
      _write(self.environment, json.dumps(environment, indent=2) + "\n")
      _write(self.config, to_json(config))
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("run directory")

  def load_config(self) -> ConfigDict:
    """Read the config of the run, with keys that were added since.

    Raises:
      UserError: if the directory contains no run.
    """
    try:
      return with_new_keys(from_json(self.config.read_text()))
    except FileNotFoundError:
      raise UserError(
        f"{self.path} holds no run; give the --workdir of a trained run."
      ) from None
    except (OSError, ValueError) as error:
      raise UserError(f"{self.config} cannot be read: {error}.") from error


def _write(path: Path, text: str) -> None:
  """Write a file atomically: an interrupted process leaves no partial file."""
  partial = path.with_suffix(".partial")
  partial.write_text(text, encoding="utf-8")
  partial.replace(path)


def describe_environment() -> dict:
  """Return the versions, devices, commit and command of this process."""
  root = Path(__file__).parent.parent
  git = ["git", "-C", str(root), "rev-parse", "HEAD"]
  try:
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
  except OSError:
    commit = ""
  return dict(
    command=sys.argv,
    commit=commit,
    devices=[device.device_kind for device in jax.devices()],
    python=platform.python_version(),
    versions={name: importlib.metadata.version(name) for name in LIBRARIES},
  )
