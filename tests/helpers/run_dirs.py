# SPDX-License-Identifier: Apache-2.0
"""Run directories of tests."""

from pathlib import Path

from lmjax.training import loop


def train_run(config, workdir: Path) -> Path:
  """Train a run to its last step; return its directory."""
  assert loop.train(config, workdir) == 0
  return workdir
