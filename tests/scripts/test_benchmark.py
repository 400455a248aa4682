# SPDX-License-Identifier: Apache-2.0
"""scripts/benchmark.py: contenders, interleaved rounds and reports."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmjax.data.tokenizers import TOKENIZERS, Tokenizer

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"
sys.path.append(str(SCRIPTS))

from benchmarks import (  # noqa: E402
  cases,
  corpora,
  interleaving,
  measure,
  parameters,
  processes,
  report_rows,
  tables,
)
from benchmarks.workload import Workload  # noqa: E402

UNK = Tokenizer.unk_id

SETTINGS = measure.Settings(
  peers=cases.LIBRARIES,
  peer_python=sys.executable,
  repeats=2,
  same_allocator=False,
)
LSTM = Workload(
  "train",
  "lstm",
  vocab_size=30,
  embedding_width=5,
  width=6,
  num_layers=2,
  batch_size=4,
  seq_len=7,
)
GPT = Workload(
  "train",
  "transformer",
  vocab_size=30,
  width=8,
  num_layers=3,
  num_heads=2,
  batch_size=4,
  seq_len=7,
)


def generating(work, top_k):
  """Turn a training workload into one of generation."""
  options = dict(use_bias=True, max_context=512) if work.num_heads else {}
  return dataclasses.replace(work, kind="generate", top_k=top_k, **options)


class Fake:
  """A runner that returns the given measurements, and then fails."""

  def __init__(self, name, values, calls):
    self.name, self._values, self._calls = name, list(values), calls

  def run(self, count):
    self._calls.append(self.name)
    if not self._values:
      raise processes.ContenderFailed("enough")
    return self._values.pop(0)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
  monkeypatch.setattr(interleaving, "REST_SECONDS", 0.0)
  monkeypatch.setattr(interleaving, "TURN_SECONDS", 0.01)


def case(contenders, rows, **options):
  return cases.Case("lstm", "some", "work", contenders, rows, **options)


def contender(name, module="startup", work=None, library="torch"):
  return cases.Contender(name, library, module, work or {})


def ours_and(work, *names):
  """Make a case of a tiny model against peers, one of which is absent."""
  made = cases._case("lstm", "tiny", work, dict.fromkeys(names, 1.0))
  absent = contender("absent", module="peer_of_nobody")
  row = cases.Row(("absent",), at_least=1.0)
  return cases.Case(
    "lstm",
    "tiny",
    "a tiny model",
    (*made.contenders, absent),
    (*made.rows, row),
    dtype=work.dtype,
  )


def test_rounds_rotate_the_first_runner():
  calls = []
  runners = [Fake("a", [1, 2, 3], calls), Fake("b", [4, 5, 6], calls)]
  values = interleaving.interleave(runners, 3, print, warm_up=False)
  assert calls == ["a", "b", "b", "a", "a", "b"]
  assert values == {"a": [1, 2, 3], "b": [4, 5, 6]}


def test_failed_peer_is_reported_and_the_others_continue():
  said, calls = [], []
  runners = [Fake("a", [1, 2, 3], calls), Fake("b", [4], calls)]
  values = interleaving.interleave(runners, 3, said.append, warm_up=False)
  assert values == {"a": [1, 2, 3], "b": [4]}
  assert said == ["b is skipped from here: enough"]
  with pytest.raises(processes.ContenderFailed):
    interleaving.interleave([Fake("a", [1], calls)], 2, print, warm_up=False)


def test_runs_fill_a_turn():
  asked = []

  class Steady:
    name = "steady"

    def run(self, count):
      asked.append(count)
      return interleaving.TURN_SECONDS / 50

  assert interleaving.runs_per_turn(Steady()) == 50
  assert asked == [1, 50]
  assert interleaving.runs_per_turn(Fake("slow", [9.0], [])) == 1


def test_ratios_pair_rounds_with_the_fastest_peer():
  both = cases.Row(("b", "c"), at_least=1.5)
  names = ("a", "b", "c")
  made = report_rows.make_rows(
    case(tuple(map(contender, names)), (both,)),
    {
      "a": [1.0, 2.0, 4.0],
      "b": [3.0, 4.0, 4.0],
      "c": [9.0, 9.0, 9.0],
      "b, same allocator": [2.0, 2.0, 4.0],
    },
    {},
  )
  row = made["some"]
  assert row["against"] == "b" and row["asked"] == {"at_least": 1.5}
  assert row["ratio"] == dict(median=2.0, minimum=1.0, maximum=3.0)
  assert row["same_allocator"]["median"] == 1.0
  assert row["contenders"]["c"]["median"] == 9.0


def test_at_most_inverts_the_ratio():
  row = cases.Row(("b",), at_most=0.5)
  pair = case((contender("a"), contender("b")), (row,))
  made = report_rows.make_rows(pair, {"a": [1.0], "b": [4.0]}, {})
  assert made["some"]["ratio"]["median"] == 0.25
  assert report_rows.make_rows(pair, {"a": [1.0], "b": []}, {}) == {}


def test_growth_is_the_exponent_of_a_power_law():
  sizes = (2, 4, 8)
  grown = case(
    tuple(contender(f"T {size}") for size in sizes),
    (cases.Row(("linear",), at_most=1.05),),
    sizes=sizes,
  )
  values = {f"T {n}": [n**1.5, 3.0 * n] for n in sizes}
  ratio = report_rows.make_rows(grown, values, {})["some"]["ratio"]
  assert ratio["minimum"] == pytest.approx(1.0)
  assert ratio["maximum"] == pytest.approx(1.5)


def test_losses_agree_within_the_dtype():
  assert report_rows.losses_agree([9.0, 8.0], [9.0, 8.0004], "float32")
  assert not report_rows.losses_agree([9.0, 8.0], [9.0, 8.004], "float32")
  assert report_rows.losses_agree([9.0, 8.0], [9.0, 8.004], "bfloat16")
  assert not report_rows.losses_agree(
    [9.0, float("nan")], [9.0, 8.0], "float32"
  )


def test_rows_report_disagreeing_losses():
  pair = case(
    (contender("a"), contender("b")),
    (cases.Row(("b",), at_least=1.0),),
    dtype="float32",
  )
  for theirs, agree in (([9.0, 8.0], True), ([9.0, 8.1], False)):
    facts = {"a": {"losses": [9.0, 8.0]}, "b": {"losses": theirs}}
    made = report_rows.make_rows(pair, {"a": [1.0], "b": [1.0]}, facts)
    assert made["some"]["agree"] is agree


@pytest.mark.parametrize(
  ("tokenizer", "size"), [("word", 333), ("character", 65)]
)
def test_corpus_has_the_requested_vocabulary_size(tmp_path, tokenizer, size):
  text = (corpora.write(tmp_path, tokenizer, size) / "train.txt").read_text()
  made = TOKENIZERS[tokenizer].train([text], 0, 1, False)
  assert made.vocab_size == size
  tokens = made.encode(corpora.prompt(tokenizer, size, 16))
  assert len(tokens) == 16 and UNK not in tokens


def test_selects_the_weights_of_one_block():
  given = {"blocks/a/kernel": np.array([[1, 2], [3, 4]]), "b": np.array(0)}
  picked = parameters.block(given, 1)
  assert list(picked) == ["a/kernel"]
  assert list(picked["a/kernel"]) == [3, 4]


def test_killed_process_fails_in_one_line(tmp_path):
  work = dict(what="train")
  process = processes.start(contender("x", work=work), sys.executable, tmp_path)
  process._process.kill()
  with pytest.raises(processes.ContenderFailed, match="ended with code -9"):
    process.run(1)
  process.close()


def test_missing_interpreter_fails(tmp_path):
  with pytest.raises(processes.ContenderFailed, match="/nowhere"):
    processes.start(contender("x"), "/nowhere", tmp_path)


def test_losses_agree_with_flax_and_absent_peers_are_reported():
  said = []
  rows = measure.measure(ours_and(LSTM, "flax nn.RNN"), SETTINGS, said.append)
  assert any("absent is skipped: ModuleNotFoundError" in line for line in said)
  row = rows["tiny / flax nn.RNN"]
  assert row["agree"] and len(row["losses"]["lmjax"]) > 2
  assert row["contenders"]["lmjax"]["rounds"] == 2
  environment = row["contenders"]["lmjax"]["environment"]
  assert environment["versions"]["jax"] and environment["devices"]
  assert list(rows) == ["tiny / flax nn.RNN"]


@pytest.mark.parametrize(
  "work, library, peer",
  [
    (LSTM, "torch", "torch eager"),
    (GPT, "torch", "torch eager"),
    (generating(LSTM, 0), "torch", "torch step loop"),
    (generating(GPT, 1), "transformers", "transformers generate"),
    (generating(GPT, 3), "transformers", "transformers generate"),
  ],
)
def test_losses_agree_with_peers(work, library, peer):
  if not importlib.util.find_spec(library):
    pytest.skip("needs scripts/requirements-peers.txt")
  rows = measure.measure(ours_and(work, peer), SETTINGS, print)
  assert rows[f"tiny / {peer}"]["agree"]


def run(*flags):
  return subprocess.run(
    [sys.executable, str(SCRIPTS / "benchmark.py"), *flags],
    capture_output=True,
    text=True,
  )


def test_formats_a_report_as_a_table(tmp_path):
  row = dict(
    work="a step",
    unit="seconds",
    ours="lmjax",
    against="torch",
    contenders={"lmjax": dict(median=0.02), "torch": dict(median=0.05)},
    ratio=dict(median=2.5, minimum=2.25, maximum=3.0),
    same_allocator=dict(against="x", median=2.0, minimum=1.5, maximum=2.5),
    asked=dict(at_least=1.5),
  )
  small = {**row, "asked": dict(at_most=4.0), "agree": False}
  del small["same_allocator"]
  (tmp_path / "out.json").write_text(json.dumps({"a": row, "b": small}))
  printed = run("table", f"--json={tmp_path}/out.json").stdout.splitlines()
  assert printed[2:] == [
    "| a step | torch | 20 ms | 50 ms | 2.5 (2.25) | ≥ 1.5 | 2 (1.5) |",
    "| a step (DISAGREE) | torch | 20 ms | 50 ms | 2.5 (3) | ≤ 4 |  |",
  ]
  assert tables.show(2_500_000, "bytes") == "2.5 MB"


@pytest.mark.parametrize(
  ("flags", "sentence"),
  [
    (["fast"], "say what to measure"),
    (["lstm", "--case=("], "not a valid regular expression"),
    (["lstm", "--peers=keras"], "choose from torch"),
    (["table", f"--json={__file__}"], "is no report"),
  ],
)
def test_invalid_flags_are_one_sentence(flags, sentence):
  ended = run(*flags)
  assert ended.returncode == 2 and sentence in ended.stderr
  assert len(ended.stderr.splitlines()) == 1, ended.stderr
