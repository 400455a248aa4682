# SPDX-License-Identifier: Apache-2.0
"""Arrays that are too large for memory, in temporary files."""

import tempfile

import numpy as np


class DiskArray:
  """An array in a temporary file, in the folder that TMPDIR names.

  It is read and written plainly, a piece at a time, and has no length of its
  own. DecodeState raises an OSError where the disk is full; a mapped file would
  kill the process.

  Args:
    dtype: of its elements.
  """

  def __init__(self, dtype: np.dtype | type):
    self._dtype = np.dtype(dtype)
    self._file = tempfile.TemporaryFile()

  def __enter__(self) -> "DiskArray":
    """Return it."""
    return self

  def __exit__(self, *_) -> None:
    """Remove the file."""
    self._file.close()

  def __getitem__(self, piece: slice) -> np.ndarray:
    """Read elements from `start` to `stop`."""
    self._file.seek(piece.start * self._dtype.itemsize)
    size = (piece.stop - piece.start) * self._dtype.itemsize
    return np.frombuffer(self._file.read(size), self._dtype)

  def __setitem__(self, piece: slice, values: np.ndarray) -> None:
    """Write elements from `start` to `stop`."""
    self._file.seek(piece.start * self._dtype.itemsize)
    self._file.write(np.ascontiguousarray(values, self._dtype))
