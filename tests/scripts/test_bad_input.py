# SPDX-License-Identifier: Apache-2.0
"""Every mistake of a user is one sentence, and leaves everything as it was."""

import fcntl
import json
import shutil
from pathlib import Path

import pytest

from lmjax.data import vocabularies
from lmjax.training import loop
from tests.scripts.commands import ROOT, Commands

TRAIN = ["train.py", "--config=configs/char_transformer.py"]
TINY = [
  "--config.model.width=16",
  "--config.model.num_layers=1",
  "--config.data.seq_len=8",
  "--config.data.batch_size=8",
]


@pytest.fixture(scope="module")
def run_folder(tiny_config, tmp_path_factory):
  """A small trained Transformer with a context of 8 characters."""
  bad_inputs = tmp_path_factory.mktemp("runs") / "run"
  config = tiny_config("transformer", **{"model.positions": "learned"})
  assert loop.train(config, bad_inputs) == 0
  return bad_inputs


@pytest.fixture(scope="module")
def commands():
  """Run scripts where a compilation is a line on stderr."""
  commands = Commands(
    JAX_LOG_COMPILES="1", JAX_NUM_CPU_DEVICES="2", JAX_PLATFORMS="cpu"
  )
  yield commands
  commands.close()


@pytest.fixture
def bad_inputs(run_folder, tmp_path):
  """A copy of the run, one of no run, and texts of all bad kinds."""
  shutil.copytree(run_folder, tmp_path / "run")
  shutil.copytree(run_folder, tmp_path / "other_vocabulary")
  tokenizer = tmp_path / "other_vocabulary" / "tokenizer.json"
  record = json.loads(tokenizer.read_text())
  record["tokens"].append("\N{SNOWMAN}")
  tokenizer.write_text(json.dumps(record))
  _change_another(run_folder, tmp_path)
  shutil.copytree(run_folder, tmp_path / "no_checkpoint")
  shutil.rmtree(tmp_path / "no_checkpoint" / "checkpoints")
  (tmp_path / "thesis").mkdir()
  (tmp_path / "thesis" / "tokenizer.json").write_text("mine")
  (tmp_path / "empty.txt").write_text("")
  (tmp_path / "short.txt").write_text("too short")
  (tmp_path / "vectors.txt").write_text("a 1 2 3\n")
  (tmp_path / "broken.txt").write_text("a 1 2 3\nb 4 5\n")
  (tmp_path / "latin.txt").write_bytes("Grüße".encode("latin-1") * 99)
  return tmp_path


def _change_another(run_folder: Path, bad_inputs: Path) -> None:
  """Make runs of another vocabulary and of another text, as if trained so."""
  words, text = bad_inputs / "other_words", bad_inputs / "other_text"
  shutil.copytree(run_folder, words)
  record = json.loads((words / "tokenizer.json").read_text())
  record["tokens"][-1] = "\N{SNOWMAN}"
  (words / "tokenizer.json").write_text(json.dumps(record))
  corpus = json.loads((words / "corpus.json").read_text())
  corpus["tokenizer"] = vocabularies.load(words / "tokenizer.json").fingerprint
  (words / "corpus.json").write_text(json.dumps(corpus))
  shutil.copytree(run_folder, text)
  config = json.loads((text / "config.json").read_text())
  config["data"]["append_eos"] = False
  (text / "config.json").write_text(json.dumps(config))


# name → (command, what the sentence must say)
text = "--config.data.source=text"
CASES = {
  "unknown key": (
    [*TRAIN, "--workdir=new", "--config.train.num_stepz=5"],
    ["no key 'num_stepz'. Did you mean \"num_steps\""],
  ),
  "wrong type": (
    [*TRAIN, "--workdir=new", "--config.train.num_steps=many"],
    ["train.num_steps=many"],
  ),
  "unknown flag": ([*TRAIN, "--wrkdir=new"], ["wrkdir", "workdir"]),
  "no flag": ([*TRAIN, "--workdir=new", "num_steps=5"], ["num_steps=5"]),
  "no workdir": (TRAIN, ["--workdir"]),
  "no such config": (
    ["train.py", "--config=configs/nope.py", "--workdir=new"],
    ["there is no", "configs/nope.py'; give --config a file"],
  ),
  "unknown choice": (
    [*TRAIN, "--workdir=new", "--config.optim.name=adma"],
    ["optim.name=adma", "adamw"],
  ),
  "empty corpus": (
    [*TRAIN, "--workdir=new", text, "--config.data.path=empty.txt"],
    ["empty.txt is empty"],
  ),
  "corpus shorter than a window": (
    [*TRAIN, "--workdir=new", text, "--config.data.path=short.txt"],
    ["split train of", "short.txt has", "at least 65", "data.seq_len=64"],
  ),
  "file not found": (
    [*TRAIN, "--workdir=new", text, "--config.data.path=no/*.txt"],
    ["data.path=", "no/*.txt names no file"],
  ),
  "not UTF-8": (
    [*TRAIN, "--workdir=new", text, "--config.data.path=latin.txt"],
    ["latin.txt is not UTF-8 at byte 2"],
  ),
  "heads that do not divide the width": (
    [*TRAIN, "--workdir=new", "--config.model.num_heads=7"],
    ["model.num_heads=7 must divide model.width=128"],
  ),
  "batch that does not divide by devices": (
    [*TRAIN, "--workdir=new", "--config.data.batch_size=9"],
    ["data.batch_size=9", "2 devices"],
  ),
  "more devices than there are": (
    [*TRAIN, "--workdir=new", "--config.parallel.num_devices=64"],
    ["parallel.num_devices=64", "2 that are here"],
  ),
  "a workdir that another run holds": (
    [*TRAIN, "--workdir=run"],
    ["another run holds", "choose another --workdir"],
  ),
  "a workdir of another config": (
    [*TRAIN, *TINY, "--workdir=other_vocabulary", "--config.model.width=32"],
    ["model.width (was 16, is 32)"],
  ),
  "a workdir that is no run": (
    [*TRAIN, "--workdir=thesis"],
    ["thesis is not a run directory and contains tokenizer.json"],
  ),
  "a workdir that is a file": (
    [*TRAIN, "--workdir=short.txt"],
    ["short.txt cannot be written"],
  ),
  "a path that the source does not read": (
    [*TRAIN, "--workdir=new", "--config.data.path=short.txt"],
    ["short.txt is not read by data.source=python_docs"],
  ),
  "a sample that could not be drawn": (
    [*TRAIN, "--workdir=new", "--config.preview.top_p=0"],
    ["top_p=0"],
  ),
  "vectors of another width than the embedding": (
    [*TRAIN, "--workdir=new", "--config.pretrained.vectors=vectors.txt"],
    ["vectors.txt has vectors of width 3", "embedding has width 128"],
  ),
  "a line of vectors that is too short": (
    ["scripts/embed.py", "--vectors=broken.txt", "--nearest=a"],
    ["broken.txt, line 2", "found 2 numbers"],
  ),
  "a cache that cannot be": (
    [*TRAIN, "--workdir=new", "--config.data.cache_dir=short.txt"],
    ["short.txt", "Not a directory"],
  ),
  "vocabulary mismatch": (
    ["scripts/sample.py", "--workdir=other_vocabulary"],
    ["tokenizer.json has another vocabulary"],
  ),
  "sampling a folder without a checkpoint": (
    ["scripts/sample.py", "--workdir=no_checkpoint"],
    ["holds no checkpoint"],
  ),
  "sampling a folder without a run": (
    ["scripts/sample.py", "--workdir=thesis"],
    ["thesis holds no run"],
  ),
  "a checkpoint that is not there": (
    ["scripts/sample.py", "--workdir=run", "--checkpoint=3"],
    ["checkpoint=3 is not in", "4"],
  ),
  "a prompt longer than the context": (
    ["scripts/sample.py", "--workdir=run", "--prompt=a long prompt"],
    ["13 tokens", "context holds 8"],
  ),
  "a negative temperature": (
    ["scripts/sample.py", "--workdir=run", "--temperature=-1"],
    ["temperature=-1"],
  ),
  "an empty file of prompts": (
    ["scripts/sample.py", "--workdir=run", "--prompt_file=empty.txt"],
    ["empty.txt is empty; write a text a line"],
  ),
  "streaming several samples": (
    ["scripts/sample.py", "--workdir=run", "--stream", "--num_samples=2"],
    ["one text at a time", "--num_samples=1"],
  ),
  "a time limit on a search": (
    ["scripts/sample.py", "--workdir=run", "--beam_size=2", "--max_seconds=1"],
    ["--max_seconds", "does not apply to --beam_size"],
  ),
  "an unknown output": (
    ["scripts/sample.py", "--workdir=run", "--output=xml"],
    ["--output=xml", "text|jsonl"],
  ),
  "a source for a run that goes on from prompts": (
    ["scripts/sample.py", "--workdir=run", "--source=a"],
    ["takes no --source; give it a --prompt"],
  ),
  "an empty stop string": (
    ["scripts/sample.py", "--workdir=run", "--stop="],
    ["stop=('',) must be a sequence of non-empty strings"],
  ),
  "a stream to an empty stop string": (
    ["scripts/sample.py", "--workdir=run", "--stop=", "--stream"],
    ["stop=('',) must be a sequence of non-empty strings"],
  ),
  "scoring nothing": (
    ["scripts/score.py", "--workdir=run"],
    ["give either --text or --input"],
  ),
  "a split that is not there": (
    ["scripts/evaluate.py", "--workdir=run", "--split=dev"],
    ["split", "valid"],
  ),
  "predicting with a run that goes on from texts": (
    ["scripts/predict.py", "--workdir=run"],
    ["is a run of task=language_modeling", "task=classification"],
  ),
  "serving no texts at a time": (
    ["scripts/serve.py", "--workdir=run", "--max_batch=0"],
    ["max_batch=0 must be at least 1"],
  ),
  "asking where no server is": (
    ["scripts/load_test.py", "--url=http://127.0.0.1:1"],
    ["http://127.0.0.1:1 did not answer"],
  ),
  "asking a server with a word for a port": (
    ["scripts/load_test.py", "--url=http://127.0.0.1:abc"],
    ["--url=http://127.0.0.1:abc must be like http://127.0.0.1:8000"],
  ),
  "mixing one run": (
    ["scripts/interpolate.py", "--workdirs=run,run"],
    ["--workdirs needs two run directories"],
  ),
  "mixing runs of two vocabularies": (
    ["scripts/interpolate.py", "--workdirs=run,other_words"],
    ["other_words has another vocabulary than", "/run;"],
  ),
  "mixing runs of two texts": (
    ["scripts/interpolate.py", "--workdirs=run,other_text"],
    ["other_text has another text in the split valid than", "/run, or"],
  ),
  "preparing nothing": (
    [
      "scripts/prepare_data.py",
      "--name=x",
      "--input=no/*.txt",
      "--data_dir=data",
    ],
    ["names no file"],
  ),
}


def contents(bad_inputs: Path) -> dict[str, bytes]:
  """Read all files that a run could spoil; caches may be added to."""
  return {
    str(path.relative_to(bad_inputs)): path.read_bytes()
    for path in bad_inputs.rglob("*")
    if path.is_file() and "cache" not in path.parts and path.name != "lock"
  }


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_sentence(name, bad_inputs, commands):
  command, wanted = CASES[name]
  script, *flags = command
  flags = [flag.replace("=configs/", f"={ROOT}/configs/") for flag in flags]
  before = contents(bad_inputs)
  with open(bad_inputs / "run" / "lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    ended = commands(bad_inputs, script, *flags)
  assert ended.returncode in (1, 2), ended.stderr
  lines = [  # tracing shapes is no compilation
    line
    for line in ended.stderr.strip().splitlines()
    if "Finished tracing" not in line
  ]
  assert len(lines) == 1 and lines[0].startswith("error: "), ended.stderr
  for words in wanted:
    assert words in lines[0]
  assert ended.stdout == ""
  assert contents(bad_inputs) == before
