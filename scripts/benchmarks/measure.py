# SPDX-License-Identifier: Apache-2.0
"""One case from its contenders' start to the rows of the report."""

import contextlib
import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import processes, report_rows
from benchmarks.cases import SUFFIX, Case, Contender
from benchmarks.interleaving import interleave
from benchmarks.processes import ContenderFailed
from benchmarks.tables import show

Say = Callable[[str], None]
SIZES = ("parameters", "step_bytes")  # facts that some contenders tell


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the command line.

  Attributes:
    peers: libraries to compare with.
    peer_python: interpreter that has PyTorch and transformers.
    repeats: number of measured rounds.
    same_allocator: whether peers also run with the allocator settings of lmjax.
  """

  peers: tuple[str, ...]
  peer_python: str
  repeats: int
  same_allocator: bool

  def python(self, contender: Contender) -> str:
    """Return the interpreter of a contender."""
    runs_here = contender.library in ("lmjax", "flax")
    return sys.executable if runs_here else self.peer_python

  def contenders(self, case: Case) -> list[Contender]:
    """Return the contenders of a case, lmjax first."""
    contenders = []
    for contender in case.contenders:
      if contender.library not in ("lmjax", *self.peers):
        continue
      contenders.append(contender)
      timed = contender.module.startswith("peer_")
      if timed and self.same_allocator:
        contenders.append(contender.with_allocator())
    return contenders


def measure(case: Case, settings: Settings, say: Say) -> dict[str, dict]:
  """Measure a case.

  Args:
    case: what is measured.
    settings: settings of the command line.
    say: prints a line of progress.

  Returns:
    Name → row; empty without a peer.

  Raises:
    ContenderFailed: if lmjax fails.
  """
  with contextlib.ExitStack() as stack:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    runners = start_all(case, settings, folder, stack, say)
    if len(runners) < 2:
      say("no peer to compare with")
      return {}
    repeats = min(settings.repeats, case.max_repeats)
    values = interleave(runners, repeats, say, case.warm_up)
    facts = {runner.name: dict(runner.facts) for runner in runners}
    for runner in runners:
      with contextlib.suppress(ContenderFailed):
        facts[runner.name]["peak_bytes"] = runner.peak_bytes()
  for name, times in values.items():
    if times:
      say(f"{name}: {_describe(times, case.unit, facts[name])}")
  rows = report_rows.make_rows(case, values, facts)
  environments = {
    name: each["environment"]
    for name, each in facts.items()
    if "environment" in each
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
    _report(name, row, say)
  return rows


def start_all(
  case: Case,
  settings: Settings,
  folder: Path,
  stack: contextlib.ExitStack,
  say: Say,
) -> list[processes.Process | processes.FreshProcesses]:
  """Start the contenders of a case, lmjax first; skip peers that fail."""
  runners, failed = [], set()
  for contender in settings.contenders(case):
    if contender.name.removesuffix(SUFFIX) in failed:
      continue
    try:
      runner = processes.start(contender, settings.python(contender), folder)
    except ContenderFailed as error:
      if not runners:
        raise
      say(f"{contender.name} is skipped: {error}")
      failed.add(contender.name)
    else:
      stack.callback(runner.close)
      runners.append(runner)
  return runners


def _rates(seconds: float, facts: dict) -> dict[str, float]:
  """Return tokens per second and model FLOPs utilization."""
  if "tokens" not in facts:
    return {}
  rates = dict(tokens_per_second=facts["tokens"] / seconds)
  if facts["peak_flops"]:
    rates["mfu"] = facts["flops"] / seconds / facts["peak_flops"]
  return rates


def _describe(times: list[float], unit: str, facts: dict) -> str:
  median = statistics.median(times)
  text = f"{show(median, unit)}, lowest {show(min(times), unit)}"
  for name, value in _rates(median, facts).items():
    text += f", {value:,.3g} {name.replace('_', ' ')}"
  for name in SIZES:
    if name in facts:
      text += f", {facts[name]:,} {name.replace('_', ' ')}"
  return text


def _report(name: str, row: dict, say: Say) -> None:
  ratio = row["ratio"]
  say(
    f"ratio against {row['against']}: {ratio['median']:.3f} "
    f"({ratio['minimum']:.3f} to {ratio['maximum']:.3f})"
  )
  if not row.get("agree", True):
    losses = "; ".join(
      f"{name} {', '.join(f'{loss:.5f}' for loss in each)}"
      for name, each in row["losses"].items()
    )
    say(f"!!! THE LOSSES OF {name.upper()} DISAGREE: {losses}")
