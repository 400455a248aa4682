# SPDX-License-Identifier: Apache-2.0
"""Statistics of the rounds, as rows of a report."""

import math
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.cases import Case, Row, same_allocator

Values = Mapping[str, Sequence[float]]

# Maximum relative difference of the losses of the first steps. Exchanging two
# gates of a model causes a difference several times as large.
TOLERANCES = {"float32": 1e-4, "bfloat16": 1e-3}


def summary(values: Sequence[float]) -> dict[str, float]:
  """Return statistics of measurements.

  >>> summary([3.0, 1.0, 2.0])
  {"median": 2.0, "minimum": 1.0, "maximum": 3.0}
  """
  return dict(
    median=statistics.median(values),
    minimum=min(values),
    maximum=max(values),
  )


def paired_ratios(
  above: Sequence[float], below: Sequence[float]
) -> list[float]:
  """Return the ratios of each round, as long as both have measurements."""
  return [a / b for a, b in zip(above, below, strict=False)]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
  """Fit a power of the size by least squares on a log–log scale.

  >>> exponent([1, 2, 4], [3.0, 6.0, 12.0])
  1.0
  """
  x = [math.log(size) for size in sizes]
  y = [math.log(value) for value in values]
  return statistics.linear_regression(x, y).slope


def losses_agree(
  ours: Sequence[float], theirs: Sequence[float], dtype: str
) -> bool:
  """Compare the losses of the first steps."""
  return all(
    math.isclose(a, b, rel_tol=TOLERANCES[dtype])
    for a, b in zip(ours, theirs, strict=True)
  )


def make_rows(
  case: Case, values: Values, facts: Mapping[str, Mapping]
) -> dict[str, dict]:
  """Make the rows of a case.

  Args:
    case: what was measured.
    values: contender → measurements; empty if it did not run.
    facts: contender → the facts that it reported.

  Returns:
    Name → row. Rows without a peer are omitted.
  """
  values = {name: times for name, times in values.items() if times}
  rows = {}
  for row in case.rows:
    compared = (
      _grow(case, values) if case.sizes else _compare(case, row, values)
    )
    if not compared:
      continue
    several = len(case.rows) > 1
    name = f"{case.name} / {compared['against']}" if several else case.name
    rows[name] = dict(
      word=case.word,
      work=case.work,
      unit=case.unit,
      **compared,
      asked=_asked(row),
      **_agreement(case, compared["contenders"], facts),
    )
  return rows


def _asked(row: Row) -> dict[str, float]:
  asked = dict(at_least=row.at_least, at_most=row.at_most)
  return {key: ratio for key, ratio in asked.items() if ratio is not None}


def _compare(case: Case, row: Row, values: Values) -> dict | None:
  """Compare lmjax with the fastest of a row's contenders."""
  ours = case.contenders[0].name
  fastest = _fastest(row.against, values)
  if ours not in values or not fastest:
    return None
  twins = [same_allocator(name) for name in row.against]
  names = [ours, *row.against, *twins]

  def ratio(theirs: str) -> dict[str, float]:
    pair = values[theirs], values[ours]
    if row.at_most is not None:
      pair = pair[::-1]
    return summary(paired_ratios(*pair))

  compared = dict(
    ours=ours,
    against=fastest,
    contenders={n: summary(values[n]) for n in names if n in values},
    ratio=ratio(fastest),
  )
  twin = _fastest(twins, values)
  if twin:
    compared["same_allocator"] = dict(against=twin, **ratio(twin))
  return compared


def _fastest(names: Sequence[str], values: Values) -> str | None:
  present = [name for name in names if name in values]
  return min(
    present, key=lambda name: statistics.median(values[name]), default=None
  )


def _grow(case: Case, values: Values) -> dict | None:
  """Fit the growth with the size, separately for each round."""
  names = [contender.name for contender in case.contenders]
  if any(name not in values for name in names):
    return None
  rounds = zip(*(values[name] for name in names), strict=False)
  return dict(
    ours=case.name,
    against="linear",
    contenders={name: summary(values[name]) for name in names},
    ratio=summary([exponent(case.sizes, times) for times in rounds]),
  )


def _agreement(
  case: Case, names: Sequence[str], facts: Mapping[str, Mapping]
) -> dict:
  """Compare the first losses, if they are comparable."""
  losses = {
    name: facts[name]["losses"]
    for name in names
    if "losses" in facts.get(name, {})
  }
  ours = losses.get(case.contenders[0].name)
  if case.sizes or not ours or len(losses) < 2:
    return {}
  agree = all(
    losses_agree(ours, theirs, case.dtype) for theirs in losses.values()
  )
  return dict(losses=losses, agree=agree)
