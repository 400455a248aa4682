# SPDX-License-Identifier: Apache-2.0
"""The command lines that draw and score texts, as processes."""

import json
import subprocess
import sys

import pytest

from lmjax.generation.decoding_strategies import Beam
from lmjax.generation.sampling_params import SamplingParams
from lmjax.run import Run
from tests.helpers.run_dirs import train_run
from tests.scripts.commands import ROOT, plain

JSONL = ["--output=jsonl"]


@pytest.fixture(scope="module")
def run_and_prompts(tiny_config, text_folder, tmp_path_factory):
  """A run with a context of 24 characters, and a file of prompts."""
  run_and_prompts = tmp_path_factory.mktemp("work")
  config = tiny_config("transformer", **{"data.seq_len": 24})
  config.data.update(dict(source="text", path=str(text_folder)))
  train_run(config, run_and_prompts / "run")
  (run_and_prompts / "prompts.txt").write_text("7 squa\n\n2\n")
  return run_and_prompts


def ask(run_and_prompts, script, *flags):
  ended = plain()(run_and_prompts, f"scripts/{script}", "--workdir=run", *flags)
  assert ended.returncode == 0, ended.stderr
  return ended.stdout, ended.stderr


def test_samples_and_scores_are_objects_and_agree(run_and_prompts):
  """Log-probabilities are those of the text that was drawn.

  No text depends on how many are drawn together.
  """
  flags = ["--prompt_file=prompts.txt", "--num_samples=2", "--num_tokens=9"]
  flags += ["--output=jsonl", "--top_k=8", "--stop=zz"]
  flags += ["--batch_size=3"]
  output, errors = ask(run_and_prompts, "sample.py", *flags)
  samples = [json.loads(line) for line in output.splitlines()]
  assert [sample["prompt"] for sample in samples] == ["7 squa"] * 2 + ["2"] * 2
  assert samples[0]["text"] != samples[1]["text"]
  assert errors.startswith("prefill 14 tokens") and "decode 36 tok" in errors
  texts = [sample["prompt"] + sample["text"] for sample in samples]
  run = Run(run_and_prompts / "run")
  params = SamplingParams(
    num_tokens=9, num_samples=2, stop=("zz",), temperature=0.8, top_k=8
  )
  together = run.generate(["7 squa", "2"], params).texts
  assert together == [sample["text"] for sample in samples]
  scores = run.score(texts)
  for sample, score in zip(samples, scores, strict=True):
    assert len(sample["tokens"]) == 9 and sample["finish_reason"] == "length"
    assert score.tokens[-9:] == sample["tokens"]
    told = pytest.approx(sample["log_probs"], rel=1e-4)
    assert score.log_probs[-9:].tolist() == told


def test_a_stream_is_the_text(run_and_prompts):
  flags = ["--prompt=7 squa", "--num_tokens=9", "--seed=3", "--stream"]
  output, errors = ask(run_and_prompts, "sample.py", *flags, "--temperature=.5")
  params = SamplingParams(num_tokens=9, seed=3, temperature=0.5)
  (made,) = Run(run_and_prompts / "run").generate("7 squa", params).completions
  assert output == f"7 squa{made.text}\n" and len(made.tokens) == 9
  assert "first token after" in errors


def test_a_beam_looks_at_the_scores_as_they_are(run_and_prompts):
  flags = ["--prompt=7 squa", "--num_tokens=6", "--num_samples=4"]
  flags += ["--epsilon_cutoff=0.045"]  # who passes depends on the temperature
  output, _ = ask(run_and_prompts, "sample.py", *flags, "--beam_size=4", *JSONL)
  run = Run(run_and_prompts / "run")
  found, sharper = (
    run.generate(
      "7 squa",
      SamplingParams(
        num_tokens=6,
        num_samples=4,
        temperature=temperature,
        epsilon_cutoff=0.045,
      ),
      strategy=Beam(beam_size=4),
    ).texts
    for temperature in (1.0, 0.8)
  )
  texts = [json.loads(line)["text"] for line in output.splitlines()]
  assert texts == found != sharper


def test_lines_are_answered_though_one_is_too_long(run_and_prompts):
  script = [sys.executable, str(ROOT / "scripts" / "sample.py")]
  ended = subprocess.run(
    [*script, "--workdir=run", "--interactive", "--num_tokens=2"],
    cwd=run_and_prompts,
    input=f"7 s\n{'1' * 25}\n7 s\n",
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 0 and len(ended.stdout.splitlines()) == 2
  assert ended.stderr == (
    "error: the prompt has 25 tokens and the model's context holds 24; shorten "
    "the prompt.\n"
  )


def test_scores_are_printed_and_drawn_on_a_page(run_and_prompts):
  flags = ["--input=prompts.txt", "--color=always", "--html=page.html"]
  output, _ = ask(run_and_prompts, "score.py", *flags)
  assert output.count("\x1b[38;5;16;48;5;") > 8
  assert "9 of 10 tokens scored: -" in output
  page = (run_and_prompts / "page.html").read_text()
  assert page.count("<span") == 10
  assert page.count("data:image/png;base64,") == 2  # a layer each
  assert "tokens</h2>" not in page


def test_a_map_says_if_its_text_goes_on(run_and_prompts):
  """Though it has more tokens than there are scores."""
  flags = [f"--prompt={'1' * 20}", "--text=7 squared", "--html=part.html"]
  ask(run_and_prompts, "score.py", *flags)
  page = (run_and_prompts / "part.html").read_text()
  assert page.count(", first 24 tokens") == 2
