# SPDX-License-Identifier: Apache-2.0
"""The command line that predicts, as a process, from another folder."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lmjax.config import defaults
from lmjax.run import Run
from lmjax.training import loop

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with a run in it that learned from a table with a header."""
  folder = tmp_path_factory.mktemp("work")
  lines = [f"{'good' if n % 2 else 'bad'}\tfilm {n}\n" for n in range(40)]
  (folder / "data.tsv").write_text("label\ttext\n" + "".join(lines))
  config = defaults.get_config("recurrent_encoder", "classification")
  data = dict(source="tsv", path=str(folder / "data.tsv"), header=True)
  config.data.update(data | dict(batch_size=4))
  config.model.update(dict(width=8, cell="gru", bidirectional=False))
  config.parallel.num_devices = 1
  config.train.update(dict(num_steps=1, preview_every=0))
  assert loop.train(config, folder / "run") == 0
  (folder / "data.tsv").unlink()
  return folder


def start(folder, *flags, **options):
  return subprocess.Popen(
    [sys.executable, str(ROOT / "scripts/predict.py"), "--workdir=run", *flags],
    cwd=folder,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    **options,
  )


def test_lines_are_answered_in_order_and_malformed_ones_named(folder):
  process = start(folder, "--malformed=skip", "--batch_size=2")
  data = "film 1\n\nÜber 中\n".encode() + b"\xff\n! \r\n\t\nfilm 1"
  output, errors = process.communicate(data)
  assert process.returncode == 0, errors
  answers = [json.loads(line) for line in output.splitlines()]
  assert [a["text"] for a in answers] == ["film 1", "Über 中", "! ", "film 1"]
  assert "中".encode() in output
  assert errors.decode() == "skipped stdin:4: it is not UTF-8 at byte 0\n"
  texts = [dict(text=answer["text"]) for answer in answers]
  for answer, made in zip(
    answers, Run(folder / "run").predict(texts), strict=True
  ):
    assert answer["label"] == made["label"]
    assert answer["probabilities"] == pytest.approx(made["probabilities"])


def test_a_malformed_record_is_refused_by_file_and_line(folder):
  (folder / "some.csv").write_text('label,text\ngood,"a\nb"\nbad,\n')
  process = start(folder, "--input=some.csv", "--batch_size=1", "--output=tsv")
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


def test_each_line_is_answered_at_once_until_nobody_reads(folder):
  process = start(
    folder, "--batch_size=1", "--format=jsonl", "--columns=text=body"
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
def test_an_interrupt_ends_in_one_sentence(folder):
  process = start(folder, "--batch_size=1")
  process.stdin.write(b"film\n")
  process.stdin.flush()
  assert process.stdout.readline()
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=60) == 130
  assert process.stderr.read() == b"error: interrupted.\n"
