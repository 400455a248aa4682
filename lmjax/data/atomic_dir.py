# SPDX-License-Identifier: Apache-2.0
"""Directories that are written atomically."""

import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(folder: Path, write: Callable[[Path], None]) -> None:
  """Write a directory that either exists with all its content or not at all.

  Several processes may write the same directory at the same time. The first
  that finishes renames its copy; the others discard theirs, so all must write
  the same content.

  Args:
    folder: the directory, whose name is a digest of its content.
    write: creates the directory that it is given and writes its content.
  """
  folder.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    dir=folder.parent, prefix="partial-", ignore_cleanup_errors=True
  ) as partial:
    written = Path(partial, folder.name)
    write(written)
    try:
      # A rename within one file system is atomic; `partial` is a sibling of
      # `folder` for that reason.
      written.rename(folder)
    except OSError:
      # If the directory exists, another process finished first.
      if not folder.exists():
        raise
