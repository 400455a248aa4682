# SPDX-License-Identifier: Apache-2.0
"""Predictions of a run whose data are gone, by command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lmjax.run import Run
from tests.helpers.configs import table_config
from tests.helpers.run_dirs import train_run

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def run_without_data(tmp_path_factory):
  """A run that was trained on a table with a header, which is gone."""
  run_without_data = tmp_path_factory.mktemp("work")
  lines = [f"{'good' if n % 2 else 'bad'}\tfilm {n}\n" for n in range(40)]
  (run_without_data / "data.tsv").write_text("label\ttext\n" + "".join(lines))
  columns = dict(text="text", label="label")
  config = table_config(run_without_data / "data.tsv", **columns)
  config.data.update(dict(header=True, batch_size=4))
  config.model.update(dict(width=8, cell="gru", bidirectional=False))
  config.train.num_steps = 1
  train_run(config, run_without_data / "run")
  (run_without_data / "data.tsv").unlink()
  return run_without_data


def start(run_without_data, *flags, **options):
  return subprocess.Popen(
    [sys.executable, str(ROOT / "scripts/predict.py"), "--workdir=run", *flags],
    cwd=run_without_data,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    **options,
  )


def test_lines_are_answered_in_order_and_malformed_ones_named(run_without_data):
  process = start(run_without_data, "--malformed=skip", "--batch_size=2")
  data = "film 1\n\nÜber 中\n".encode() + b"\xff\n! \r\n\t\nfilm 1"
  output, errors = process.communicate(data)
  assert process.returncode == 0, errors
  answers = [json.loads(line) for line in output.splitlines()]
  assert [a["text"] for a in answers] == ["film 1", "Über 中", "! ", "film 1"]
  assert "中".encode() in output
  assert errors.decode() == "skipped stdin:4: it is not UTF-8 at byte 0\n"
  texts = [dict(text=answer["text"]) for answer in answers]
  for answer, made in zip(
    answers, Run(run_without_data / "run").predict(texts), strict=True
  ):
    assert answer["label"] == made["label"]
    assert answer["probabilities"] == pytest.approx(made["probabilities"])


def test_a_malformed_record_is_refused_by_file_and_line(run_without_data):
  (run_without_data / "some.csv").write_text('label,text\ngood,"a\nb"\nbad,\n')
  process = start(
    run_without_data, "--input=some.csv", "--batch_size=1", "--output=tsv"
  )
  output, errors = process.communicate()
  assert process.returncode == 1
  names, answer = (line.split("\t") for line in output.decode().splitlines())
  assert names == ["text", "label", "probabilities"]
  assert answer[0] == r'"a\nb"' and answer[1] in ("good", "bad")
  assert json.loads(answer[2]).keys() == {"good", "bad"}
  assert errors.decode() == (
    "error: some.csv:4: its text is empty; correct the record or give "
    "--malformed=skip.\n"
  )


def test_each_line_is_answered_at_once_until_nobody_reads(run_without_data):
  process = start(
    run_without_data, "--batch_size=1", "--format=jsonl", "--columns=text=body"
  )
  for number in range(3):
    process.stdin.write(b'{"body": "film %d", "id": 7}\n' % number)
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    assert answer["text"] == f"film {number}"
    assert answer.keys() == {"text", "label", "probabilities"}
  process.stdout.close()
  process.stdin.write(b'{"body": "film"}\n' * 9)
  process.stdin.close()
  assert process.wait(timeout=60) == 0
  assert process.stderr.read() == b""


@pytest.mark.skipif(
  signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
  reason="processes of a shell's background do not hear of interrupts",
)
def test_an_interrupt_ends_in_one_sentence(run_without_data):
  process = start(run_without_data, "--batch_size=1")
  process.stdin.write(b"film\n")
  process.stdin.flush()
  assert process.stdout.readline()
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=60) == 130
  assert process.stderr.read() == b"error: interrupted.\n"
