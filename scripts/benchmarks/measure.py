# SPDX-License-Identifier: Apache-2.0
"""One case from its contenders' start to the rows of the report."""

import contextlib
import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import figures, processes
from benchmarks.cases import SUFFIX, Case, Contender
from benchmarks.processes import ContenderFailed
from benchmarks.tables import show
from benchmarks.turns import take_turns

Say = Callable[[str], None]
SIZES = ("parameters", "step_bytes")  # facts that some contenders tell


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a user chose.

  Attributes:
    peers: libraries to compare with.
    peer_python: interpreter that has PyTorch and transformers.
    repeats: rounds that count.
    same_allocator: whether peers run once more with our allocator settings.
  """

  peers: tuple[str, ...]
  peer_python: str
  repeats: int
  same_allocator: bool

  def python(self, contender: Contender) -> str:
    """Choose the interpreter of a contender."""
    runs_here = contender.library in ("lmjax", "flax")
    return sys.executable if runs_here else self.peer_python

  def contenders(self, case: Case) -> list[Contender]:
    """List who takes part in a case, ours first, twins behind theirs."""
    chosen = []
    for contender in case.contenders:
      if contender.library not in ("lmjax", *self.peers):
        continue
      chosen.append(contender)
      timed = contender.module.startswith("peer_")
      if timed and self.same_allocator:
        chosen.append(contender.with_allocator())
    return chosen


def measure(case: Case, settings: Settings, say: Say) -> dict[str, dict]:
  """Run a case.

  Args:
    case: what is measured.
    settings: what a user chose.
    say: is told how it goes, line by line.

  Returns:
    Name → row; none without a peer to compare with.

  Raises:
    ContenderFailed: if ours cannot be measured.
  """
  with contextlib.ExitStack() as stack:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    runners = start_all(case, settings, folder, stack, say)
    if len(runners) < 2:
      say("no peer to compare with")
      return {}
    repeats = min(settings.repeats, case.most_repeats)
    values = take_turns(runners, repeats, say, case.warm_up)
    facts = {runner.name: dict(runner.facts) for runner in runners}
    for runner in runners:
      with contextlib.suppress(ContenderFailed):
        facts[runner.name]["peak_bytes"] = runner.peak_bytes()
  for name, taken in values.items():
    if taken:
      say(f"{name}: {_describe(taken, case.unit, facts[name])}")
  rows = figures.make_rows(case, values, facts)
  environments = {
    name: told["environment"]
    for name, told in facts.items()
    if "environment" in told
  }
  for name, row in rows.items():
    for contender, figure in row["contenders"].items():
      figure["rounds"] = len(values[contender])
      for fact in ("peak_bytes", *SIZES):
        figure[fact] = facts[contender].get(fact)
      figure.update(
        _rates(figure["median"], facts[contender]),
        environment=environments.get(contender),
      )
    _tell(name, row, say)
  return rows


def start_all(
  case: Case,
  settings: Settings,
  folder: Path,
  stack: contextlib.ExitStack,
  say: Say,
) -> list[processes.Process | processes.FreshProcesses]:
  """Start the contenders of a case, ours first, and leave out who fails."""
  runners, failed = [], set()
  for contender in settings.contenders(case):
    if contender.name.removesuffix(SUFFIX) in failed:
      continue
    try:
      runner = processes.start(contender, settings.python(contender), folder)
    except ContenderFailed as error:
      if not runners:
        raise
      say(f"{contender.name} is left out: {error}")
      failed.add(contender.name)
    else:
      stack.callback(runner.close)
      runners.append(runner)
  return runners


def _rates(seconds: float, facts: dict) -> dict[str, float]:
  """Turn seconds of a step into tokens and use of the hardware."""
  if "tokens" not in facts:
    return {}
  rates = dict(tokens_per_second=facts["tokens"] / seconds)
  if facts["peak_flops"]:
    rates["mfu"] = facts["flops"] / seconds / facts["peak_flops"]
  return rates


def _describe(taken: list[float], unit: str, facts: dict) -> str:
  median = statistics.median(taken)
  text = f"{show(median, unit)}, lowest {show(min(taken), unit)}"
  for name, value in _rates(median, facts).items():
    text += f", {value:,.3g} {name.replace('_', ' ')}"
  for name in SIZES:
    if name in facts:
      text += f", {facts[name]:,} {name.replace('_', ' ')}"
  return text


def _tell(name: str, row: dict, say: Say) -> None:
  ratio = row["ratio"]
  say(
    f"ratio against {row['against']}: {ratio['median']:.3f} "
    f"({ratio['minimum']:.3f} to {ratio['maximum']:.3f})"
  )
  if not row.get("agree", True):
    losses = "; ".join(
      f"{who} {', '.join(f'{loss:.5f}' for loss in told)}"
      for who, told in row["losses"].items()
    )
    say(f"!!! THE LOSSES OF {name.upper()} DISAGREE: {losses}")
