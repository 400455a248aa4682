# SPDX-License-Identifier: Apache-2.0
"""Taking turns: one contender runs while all others wait.

What a machine does beside the measurement changes from minute to minute, so
only figures of the same round are compared with each other.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from benchmarks.processes import ContenderFailed

TURN_SECONDS = 0.7
REST_SECONDS = 0.1  # in which threads of the turn before fall asleep
MOST_RUNS = 20_000
MOST_TRIALS = 4  # turns that find out how much fits into one


class Runner(Protocol):
  """Something that can be run for a turn."""

  name: str

  def run(self, count: int) -> float:
    """Do the work `count` times; return what once took."""


def take_turns(
  runners: Sequence[Runner],
  repeats: int,
  say: Callable[[str], None],
  warm_up: bool = True,
) -> dict[str, list[float]]:
  """Measure each runner once a round.

  Args:
    runners: who is measured; which of them begins changes with the round.
    repeats: number of rounds that count.
    say: is told in a line who fails; the rest goes on.
    warm_up: whether they are run before; it also finds how often a runner does
      its work in a turn, which is once without it.

  Returns:
    Name → a figure a round; those of the rounds before a runner failed.

  Raises:
    ContenderFailed: if the first runner fails, with which all are compared.
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
      say(f"{runner.name} is left out from here: {error}")

  def prepare(runner: Runner) -> None:
    counts[runner.name] = runs_in_a_turn(runner)

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


def runs_in_a_turn(runner: Runner) -> int:
  """Find how often a runner does its work in a turn, by trying."""
  count = 1
  for _ in range(MOST_TRIALS):
    once = max(runner.run(count), 1e-9)
    wanted = min(max(round(TURN_SECONDS / once), 1), MOST_RUNS)
    if count / 2 <= wanted <= count * 2:
      break
    count = wanted
  return count
