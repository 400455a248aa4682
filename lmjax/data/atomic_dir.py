# SPDX-License-Identifier: Apache-2.0
"""Folders that appear whole or not at all."""

import tempfile
from collections.abc import Callable
from pathlib import Path


def make_whole(folder: Path, fill: Callable[[Path], None]) -> None:
  """Make a folder by filling another, which then takes its name.

  Processes may do so at the same time, with the same content; the first wins.

  Args:
    folder: the folder, whose name tells its content.
    fill: makes the folder that it is given and fills it.
  """
  folder.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    dir=folder.parent, prefix="partial-", ignore_cleanup_errors=True
  ) as partial:
    filled = Path(partial, folder.name)
    fill(filled)
    try:
      filled.rename(folder)
    except OSError:  # another process was faster
      if not folder.exists():
        raise
