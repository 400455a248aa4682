# SPDX-License-Identifier: Apache-2.0
"""The commands, as processes in another working directory."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.scripts.commands import ROOT, plain

TINY = [
  "--config.model.width=16",
  "--config.data.seq_len=16",
  "--config.data.batch_size=8",
  "--config.train.eval_batches=2",
  "--config.train.log_every=2",
]


def start(work_dir, *flags, config="char_lstm", **options):
  path = f"--config={ROOT}/configs/{config}.py"
  return subprocess.Popen(
    [sys.executable, ROOT / "train.py", path, "--workdir=run", *TINY, *flags],
    cwd=work_dir,
    stderr=subprocess.PIPE,
    text=True,
    **options,
  )


def output(work_dir, script, *flags):
  ended = plain()(work_dir, script, *flags)
  assert ended.returncode == 0, ended.stderr
  return ended.stdout


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
  """A directory with a run of a few steps."""
  work_dir = tmp_path_factory.mktemp("work")
  process = start(work_dir, "--config.train.num_steps=4")
  _, errors = process.communicate()
  assert process.returncode == 0, errors
  assert "different from the defaults" in errors and "total" in errors
  return work_dir


def test_sample_prints_the_prompt_and_is_reproducible(work_dir):
  flags = ["--workdir=run", "--prompt=The ", "--num_tokens=9", "--seed=3"]
  flags += ["--num_samples=2", "--top_k=5", "--top_p=0.9"]
  first = output(work_dir, "scripts/sample.py", *flags)
  assert first.count("The ") == 2
  assert output(work_dir, "scripts/sample.py", *flags) == first
  for other in (["--seed=4"], ["--cache_size=9", "--cache_lambda=0.99"]):
    assert output(work_dir, "scripts/sample.py", *flags, *other) != first


def test_evaluate_prints_one_json_object(work_dir):
  for order in ("stateful", "stateless"):
    text = output(
      work_dir,
      "scripts/evaluate.py",
      "--workdir=run",
      "--split=test",
      f"--order={order}",
    )
    report = json.loads(text)
    assert report["order"] == order and report["split"] == "test"
    assert report["step"] == 4
    bits = report["bits_per_character"]
    assert 0 < bits < 7 and report["perplexity"] > 1


def test_a_cache_is_named_in_the_report_and_changes_it(work_dir):
  flags = ["--workdir=run", "--split=test", "--cache_size=20"]
  losses = []
  for theta, weight in ((0.1, 0.5), (0.1, 0.25), (5.0, 0.5)):
    numbers = [f"--cache_theta={theta}", f"--cache_lambda={weight}"]
    report = json.loads(
      output(work_dir, "scripts/evaluate.py", *flags, *numbers)
    )
    assert report["cache"] == dict(size=20, theta=theta, weight=weight)
    losses.append(report["loss"])
  assert len(set(losses)) == 3


def test_an_ngram_is_written_as_arpa_and_mixed_with_another_run(work_dir):
  flags = ["--config.data.tokenizer=character", "--config.model.order=3"]
  flags = [f"--config={ROOT}/configs/ngram.py", "--workdir=ngram", *flags]
  output(work_dir, "train.py", *flags)
  flags = ["--workdir=ngram", "--output=ngram.arpa"]
  output(work_dir, "scripts/export_arpa.py", *flags)
  head = (work_dir / "ngram.arpa").read_text()[:60]
  assert head.startswith("\\data\\\nngram 1=")
  report = json.loads(
    output(work_dir, "scripts/interpolate.py", "--workdirs=run,ngram")
  )
  assert report["split"] == "test"
  assert report["mixture"] < 1.01 * min(report["perplexity"].values())
  assert sum(report["weights"].values()) == pytest.approx(1.0)


def test_embed_answers_and_exports(work_dir):
  path = work_dir / "vectors.txt"
  script = "scripts/embed.py"
  text = output(
    work_dir, script, "--workdir=run", "--nearest=e", "--export=v.txt"
  )
  assert text.startswith("e: ") and text.count(",") == 9
  width = (work_dir / "v.txt").read_text().split("\n")[0].split()[1]
  assert width == "64"
  path.write_text("man 1 0\nking 1 1\nwoman -1 0\nqueen -1 1\n")
  flags = ["--vectors=vectors.txt", "--analogy=man king woman", "--number=1"]
  text = output(work_dir, script, *flags)
  assert text.startswith("man : king = woman : queen")


def test_a_run_folder_describes_itself(work_dir):
  run = work_dir / "run"
  assert json.loads((run / "config.json").read_text())["model"]["width"] == 16
  environment = json.loads((run / "environment.json").read_text())
  assert environment["versions"]["jax"] and environment["devices"]
  assert list((run / "events").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_a_checkpoint_and_its_own_code(tmp_path, number):
  process = start(tmp_path, "--config.train.num_steps=100000")
  wait_for_records(tmp_path)
  os.kill(process.pid, number)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 128 + number, errors
  steps = [int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()]
  assert steps and f"stopped at step {max(steps)}" in errors


@pytest.mark.slow
@pytest.mark.parametrize(
  ("config", "flags"),
  [
    ("char_lstm", ["--config.data.order=stateful"]),
    ("char_lstm", ["--config.data.order=stateless"]),
    ("char_transformer", ["--config.data.order=stateless"]),
    (
      "char_transformer",
      ["--config.data.order=stateful", "--config.model.positions=rotary"],
    ),
  ],
)
def test_verify_resume_is_green(tmp_path, config, flags):
  text = output(
    tmp_path,
    "scripts/verify_resume.py",
    f"--config={ROOT}/configs/{config}.py",
    *flags,
  )
  assert text.startswith("exact: ")


@pytest.mark.slow
def test_verify_resume_finds_a_difference(tmp_path):
  """A data order that forgets where it was must be named."""
  broken = tmp_path / "broken.py"
  script = (ROOT / "scripts" / "verify_resume.py").read_text()
  patch = """
from lmjax.data.text import batching
for order in set(batching.TRAIN_ORDERS.values()):
  read = order.__getitem__
  offset = int.from_bytes(__import__("os").urandom(2), "big")
  order.__getitem__ = (
    lambda self, index, read=read: read(self, index + offset)
  )

if __name__ == "__main__":"""
  broken.write_text(script.replace('if __name__ == "__main__":', patch))
  ended = subprocess.run(
    [
      sys.executable,
      str(broken),
      f"--config={ROOT}/configs/char_lstm.py",
      *TINY,
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 1 and ended.stdout.startswith("differs: ")


def test_prepared_data_is_trained_on(tmp_path, text_folder):
  printed = output(
    tmp_path,
    "scripts/prepare_data.py",
    "--name=squares",
    f"--input={text_folder}",
    "--data_dir=data",
    "--shard_size=1",
  )
  assert printed.strip().endswith("data/squares/1.0.0")
  process = start(
    tmp_path,
    "--config.train.num_steps=2",
    "--config.data.source=tfds",
    "--config.data.name=squares",
    "--config.data.data_dir=data",
  )
  _, errors = process.communicate()
  assert process.returncode == 0, errors


@pytest.mark.slow
def test_the_benchmark_of_the_loader_prints_a_ratio(tmp_path):
  text = output(tmp_path, "scripts/benchmark.py", "data", "--repeats=1", *TINY)
  assert json.loads(text)["data"]["ratio"]["median"] > 0


def start_two(work_dir, *flags):
  """Start two processes that train together in one run directory."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  work_dir.mkdir()
  return [
    start(
      work_dir,
      "--config.train.preview_every=0",
      *flags,
      env={
        **os.environ,
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(index),
      },
    )
    for index in range(2)
  ]


def wait_for_records(work_dir):
  metrics = work_dir / "run" / "metrics.jsonl"
  deadline = time.time() + 60
  while time.time() < deadline and not (
    metrics.exists() and metrics.read_text()
  ):
    time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
  flags = ["--config.train.num_steps=6", "--config.train.eval_every=6"]
  (tmp_path / "one").mkdir()
  alone = start(tmp_path / "one", "--config.train.preview_every=0", *flags)
  for process in [alone, *start_two(tmp_path / "two", *flags)]:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
  one, two = (
    [
      json.loads(line)
      for line in (tmp_path / name / "run/metrics.jsonl").open()
    ]
    for name in ("one", "two")
  )
  assert [r["step"] for r in one] == [r["step"] for r in two] == [2, 4, 6, 6]
  for a, b in zip(one, two, strict=True):
    assert abs(a["loss"] - b["loss"]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path, index):
  processes = start_two(tmp_path / "two", "--config.train.num_steps=100000")
  wait_for_records(tmp_path / "two")
  os.kill(processes[index].pid, signal.SIGTERM)
  for process in processes:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
  stored = list((tmp_path / "two" / "run" / "checkpoints").iterdir())
  assert [path for path in stored if path.name.isdigit()]
