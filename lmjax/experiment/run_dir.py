# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what it holds, who may write to it.

    config.json       the config as the user gave it
    tokenizer.json    built once, loaded ever after
    corpus.json       digests and sizes of text and tokenizer
    teacher.npy       what another run says of the rows, if it is a teacher
    environment.json  versions, devices and command of the last start
    metrics.jsonl     one record a line; the source of truth
    events/           TensorBoard's copy of the numbers
    checkpoints/      Orbax
    cache/            encoded corpora, unless data.cache_dir names a folder

Nothing but the lock and the cache is written before everything that a config
can get wrong has been checked.
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
  """Paths of a run directory, and the rules for writing to it."""

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
    """Say whether there is a checkpoint; until then all may be made anew."""
    folder = self.checkpoints
    return folder.exists() and any(p.name.isdigit() for p in folder.iterdir())

  @contextlib.contextmanager
  def lock(self) -> Iterator[None]:
    """Hold the folder for one run; the lock dies with its first process.

    Raises:
      UserError: if another run holds it, it holds something else than a run,
        or it cannot be made.
    """
    if jax.process_index():  # the first process makes and holds it for all
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
    """Refuse a folder that no run has locked before, unless it is empty."""
    if self._lock.exists() or not self.path.exists():
      return
    strangers = sorted(p.name for p in self.path.iterdir())
    if strangers and not self.config.exists():
      raise UserError(
        f"{self.path} is no run directory and holds {strangers[0]}; choose an "
        "empty or a new --workdir."
      )

  def check(self, config: ConfigDict) -> None:
    """See that a config may continue the run in this folder.

    Raises:
      UserError: if the run has another config.
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
    """Load the tokenizer that the run began with.

    Raises:
      UserError: if the file is broken or another run's.
    """
    tokenizer = load(self.tokenizer)
    if tokenizer.fingerprint != self.load_corpus()["tokenizer"]:
      raise UserError(
        f"{self.tokenizer} has another vocabulary than the checkpoints beside "
        "it; restore the run's own file."
      )
    return tokenizer

  def load_corpus(self) -> dict:
    """Read what the run began with: `Experiment.describe_corpus`.

    Raises:
      UserError: if the file is broken.
    """
    try:
      return json.loads(self.corpus.read_text())
    except (OSError, ValueError) as error:
      raise UserError(
        f"{self.corpus} cannot be read; restore the run's own file."
      ) from error

  def check_corpus(self, fingerprints: dict[str, str]) -> None:
    """See that the text is still what the run began with.

    Raises:
      UserError: if it is not.
    """
    if (
      self.has_checkpoint()
      and self.load_corpus()["fingerprints"] != fingerprints
    ):
      raise UserError(
        f"the corpus has changed since the run in {self.path} began; restore "
        "it or choose another --workdir."
      )

  def write(
    self, config: ConfigDict, tokenizer: Tokenizer, corpus: dict
  ) -> None:
    """Describe the run; the first process writes, the others wait for it."""
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
    """Read the run's config.

    Raises:
      UserError: if the folder holds no run.
    """
    try:
      return with_new_keys(from_json(self.config.read_text()))
    except FileNotFoundError:
      raise UserError(
        f"{self.path} holds no run; give the --workdir of a train.py."
      ) from None
    except (OSError, ValueError) as error:
      raise UserError(f"{self.config} cannot be read: {error}.") from error


def _write(path: Path, text: str) -> None:
  """Write a file that is there whole or not at all."""
  partial = path.with_suffix(".partial")
  partial.write_text(text, encoding="utf-8")
  partial.replace(path)


def describe_environment() -> dict:
  """Name versions, devices, commit and command."""
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
