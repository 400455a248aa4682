# SPDX-License-Identifier: Apache-2.0
"""Examples as arrays: many rows end to end, and padded ones side by side."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lmjax.data.schemas.schema import Example


@dataclasses.dataclass(frozen=True)
class Encoded:
  """Examples, field by field.

  Attributes:
    groups: fields whose first axis is time, by mask; see Schema.
    pads: what they are padded with, where it is not 0.
    values: by field: rows end to end, [sum of lengths, ...], of fields that
      are in a group; else rows, [N, ...].
    starts: by mask: where each row begins, int64 [N + 1].
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
    """Put examples end to end."""
    examples = list(examples)
    grouped = {field for fields in groups.values() for field in fields}
    values, starts = {}, {}
    for field in examples[0] if examples else ():
      join = np.concatenate if field in grouped else np.stack
      values[field] = join([example[field] for example in examples])
    for mask, fields in groups.items():
      sizes = [len(example[fields[0]]) for example in examples]
      starts[mask] = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    return cls(groups, pads, values, starts)

  def __len__(self) -> int:
    """Return the number of rows."""
    return len(self.values["weights"]) if self.values else 0

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
    rows_B = np.where(fills_B, rows_B.max(), rows_B)
    batch = {}
    for (mask, fields), width in zip(self.groups.items(), widths, strict=True):
      starts_B = self.starts[mask][rows_B]
      sizes_B = self.starts[mask][rows_B + 1] - starts_B
      mask_BT = np.arange(width) < sizes_B[:, None]
      index_BT = np.where(mask_BT, starts_B[:, None] + np.arange(width), 0)
      batch[mask] = mask_BT
      for field in fields:
        if field in self.values:
          values = self.values[field]
          shown = mask_BT.reshape(mask_BT.shape + (1,) * (values.ndim - 1))
          pad = np.array(self.pads.get(field, 0), values.dtype)
          batch[field] = np.where(shown, values[index_BT], pad)
    for field, values in self.values.items():
      if field not in batch:
        batch[field] = values[rows_B]
    batch["weights"] = batch["weights"].copy()
    batch["weights"][fills_B] = 0.0
    return batch
