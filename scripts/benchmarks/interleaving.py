# SPDX-License-Identifier: Apache-2.0
"""Interleaved measurement: one contender runs while all others wait.

The other load of a machine changes from minute to minute, so only measurements
of the same round are compared with each other.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from benchmarks.processes import ContenderFailed

TURN_SECONDS = 0.7
REST_SECONDS = 0.1  # until the threads of the previous contender are idle
MAX_RUNS = 20_000
MAX_TRIALS = 4  # attempts to find the number of runs per turn


class Runner(Protocol):
  """Runs a workload."""

  name: str

  def run(self, count: int) -> float:
    """Run the workload `count` times; return the time of one run."""


def interleave(
  runners: Sequence[Runner],
  repeats: int,
  say: Callable[[str], None],
  warm_up: bool = True,
) -> dict[str, list[float]]:
  """Measure each runner once per round.

  Args:
    runners: the runners; the first one of a round rotates.
    repeats: number of rounds.
    say: prints which runner failed; the others continue.
    warm_up: whether to run before the measurement, which also determines the
      number of runs per turn; it is 1 without.

  Returns:
    Name → one measurement per round, up to a failure.

  Raises:
    ContenderFailed: if the first runner fails, to which all are compared.
  """
  values = {runner.name: [] for runner in runners}
  counts = dict.fromkeys(values, 1)
  alive = list(runners)

  def attempt(runner: Runner, turn: Callable[[Runner], None]) -> None:
    try:
      turn(runner)
    except ContenderFailed as error:
      if runner is runners[0]:
        raise
      alive.remove(runner)
      say(f"{runner.name} is skipped from here: {error}")

  def prepare(runner: Runner) -> None:
    counts[runner.name] = runs_per_turn(runner)

  def measure(runner: Runner) -> None:
    time.sleep(REST_SECONDS)
    values[runner.name].append(runner.run(counts[runner.name]))

  for runner in runners if warm_up else ():
    attempt(runner, prepare)
  for index in range(repeats):
    first = index % len(alive)
    for runner in alive[first:] + alive[:first]:
      attempt(runner, measure)
  return values


def runs_per_turn(runner: Runner) -> int:
  """Return the number of runs that fill a turn, by trial."""
  count = 1
  for _ in range(MAX_TRIALS):
    once = max(runner.run(count), 1e-9)
    wanted = min(max(round(TURN_SECONDS / once), 1), MAX_RUNS)
    if count / 2 <= wanted <= count * 2:
      break
    count = wanted
  return count
