# SPDX-License-Identifier: Apache-2.0
"""Examples as arrays: many rows end to end, and padded ones side by side."""

import array
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lmjax.data.records.schemas.schema import Example


class _Column:
  """A field of examples while they come.

  Args:
    first: its value in the first example.
    grows: whether its first axis is time.
  """

  def __init__(self, first: np.ndarray, grows: bool):
    first = np.asarray(first)
    self._dtype, self._shape = first.dtype, first.shape[grows:]
    self._grows, self._bytes = grows, bytearray()

  def append(self, value: np.ndarray) -> int:
    """Add a value; return how long it is."""
    value = np.asarray(value).astype(
      self._dtype, casting="same_kind", copy=False
    )
    assert value.shape[self._grows :] == self._shape
    self._bytes += value.tobytes()
    return len(value) if self._grows else 1

  def values(self) -> np.ndarray:
    """Return all of them, end to end."""
    return np.frombuffer(self._bytes, self._dtype).reshape(-1, *self._shape)


@dataclasses.dataclass(frozen=True)
class Encoded:
  """Examples, field by field.

  Attributes:
    groups: fields whose first axis is time, by mask; see Schema.
    pads: what they are padded with, where it is not 0.
    values: by field: rows end to end, [sum of lengths, ...], of fields that
      are in a group; else rows, [N, ...].
    starts: by mask: start of each row, int64 [N + 1].
  """

  groups: Mapping[str, tuple[str, ...]]
  pads: Mapping[str, int | float]
  values: Mapping[str, np.ndarray]
  starts: Mapping[str, np.ndarray]

  @classmethod
  def of(
    cls,
    examples: Iterable[Example],
    groups: Mapping[str, tuple[str, ...]],
    pads: Mapping[str, int | float],
  ) -> "Encoded":
    """Put examples end to end, without keeping them.

    Args:
      examples: all have the fields of the first, and their types.
      groups: see Schema.
      pads: see Schema.
    """
    columns = {}
    ends = {mask: array.array("q", [0]) for mask in groups}
    mask_of = {field: mask for mask in groups for field in groups[mask]}
    for example in examples:
      if not columns:
        columns = {k: _Column(v, k in mask_of) for k, v in example.items()}
      sizes = {mask: len(example[f[0]]) for mask, f in groups.items()}
      for mask, size in sizes.items():
        ends[mask].append(ends[mask][-1] + size)
      for field, column in columns.items():
        added = column.append(example[field])
        assert field not in mask_of or added == sizes[mask_of[field]], field
    values = {field: column.values() for field, column in columns.items()}
    starts = {mask: np.frombuffer(x, np.int64) for mask, x in ends.items()}
    return cls(groups, pads, values, starts)

  def save(self, folder: Path) -> None:
    """Write all arrays into a folder that is there."""
    for kind, arrays in (("values", self.values), ("starts", self.starts)):
      for name, values in arrays.items():
        np.save(folder / f"{kind}.{name}.npy", values)

  @classmethod
  def open(
    cls,
    folder: Path,
    groups: Mapping[str, tuple[str, ...]],
    pads: Mapping[str, int | float],
  ) -> "Encoded":
    """Map what `save` wrote; pages are read when they are used."""

    def arrays(kind: str) -> dict[str, np.ndarray]:
      paths = sorted(folder.glob(f"{kind}.*.npy"))
      return {p.name.split(".")[1]: np.load(p, mmap_mode="r") for p in paths}

    starts = arrays("starts")
    starts = {mask: starts[mask] for mask in groups}
    return cls(groups, pads, arrays("values"), starts)

  def __len__(self) -> int:
    """Return the number of rows."""
    return len(next(iter(self.starts.values()))) - 1

  def lengths(self) -> np.ndarray:
    """Return how long each row's groups are, int64 [N, groups]."""
    return np.stack([np.diff(x) for x in self.starts.values()], axis=1)

  def batch(self, rows_B: np.ndarray, widths: Sequence[int]) -> Example:
    """Pad some rows to one length a group.

    Args:
      rows_B: their numbers; −1 for a row that fills up, which weighs nothing
        and repeats another.
      widths: how long each group becomes; at least as long as all rows.
    """
    fills_B = rows_B < 0
    rows_B = np.where(fills_B, max(rows_B.max(), 0), rows_B)
    batch = {}
    for (mask, fields), width in zip(self.groups.items(), widths, strict=True):
      starts_B = self.starts[mask][rows_B]
      sizes_B = self.starts[mask][rows_B + 1] - starts_B
      mask_BT = np.arange(width) < sizes_B[:, None]
      index_N = (starts_B[:, None] + np.arange(width))[mask_BT]
      batch[mask] = mask_BT
      for field in fields:
        if field in self.values:
          values = self.values[field]
          shape = (*mask_BT.shape, *values.shape[1:])
          batch[field] = np.full(shape, self.pads.get(field, 0), values.dtype)
          batch[field][mask_BT] = values[index_N]
    for field, values in self.values.items():
      if field not in batch:
        batch[field] = values[rows_B]
    batch["weights"][fills_B] = 0.0
    return batch
