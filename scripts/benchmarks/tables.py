# SPDX-License-Identifier: Apache-2.0
"""Rows of a report as a Markdown table."""

from collections.abc import Mapping

HEAD = (
  "work",
  "against",
  "ours",
  "theirs",
  "ratio (worst)",
  "asked",
  "same allocator",
)


def make_table(rows: Mapping[str, Mapping]) -> str:
  """Format rows as a Markdown table.

  Ratios with a minimum are their time over ours, ratios with a maximum our time
  over theirs: the median of all rounds, and the worst round in brackets.
  """
  lines = [HEAD, ("---",) * len(HEAD), *map(_cells, rows.values())]
  return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(row: Mapping) -> tuple[str, ...]:
  contenders, ratio = row["contenders"], row["ratio"]

  def measurement(name: str) -> str:
    found = contenders.get(name)
    return show(found["median"], row["unit"]) if found else ""

  work = row["work"] if row.get("agree", True) else f"{row['work']} (DISAGREE)"
  twin = row.get("same_allocator")
  return (
    work,
    row["against"],
    measurement(row["ours"]),
    measurement(row["against"]),
    f"{ratio['median']:.3g} ({_worst(row, ratio):.3g})",
    _asked(row["asked"]),
    f"{twin['median']:.3g} ({_worst(row, twin):.3g})" if twin else "",
  )


def _worst(row: Mapping, ratio: Mapping[str, float]) -> float:
  return ratio["maximum" if "at_most" in row["asked"] else "minimum"]


def _asked(asked: Mapping[str, float]) -> str:
  signs = {"at_least": "≥", "at_most": "≤"}
  return "".join(f"{signs[key]} {ratio:g}" for key, ratio in asked.items())


def show(value: float, unit: str) -> str:
  """Format a measurement with its unit.

  >>> show(0.0123, "seconds"), show(2_500_000, "bytes")
  ("12.3 ms", "2.5 MB")
  """
  if unit == "bytes":
    return f"{value / 1e6:,.3g} MB" if value < 1e9 else f"{value / 1e9:.3g} GB"
  for scale, name in ((1, "s"), (1e-3, "ms")):
    if value >= scale:
      return f"{value / scale:.3g} {name}"
  return f"{value * 1e6:.3g} µs"
