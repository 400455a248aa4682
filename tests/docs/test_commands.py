# SPDX-License-Identifier: Apache-2.0
"""The commands and examples of the documentation run as they are printed."""

import doctest
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.docs.markdown import PAGES, ROOT, blocks, commands

# Commands that need more than a test has, and why.
SKIPPED = {
  r"^source \.venv": "the environment of the tests is active already",
  r"^pip install": "installs into the environment of the tests",
  r"quickstart\.sh|test\.sh|docs\.sh": "creates an environment of its own",
  r"scripts/serve\.py": "runs until a signal; see tests/serving",
  r"scripts/benchmark\.py": "takes hours",
  r"books/\*\.txt|runs/b\b": "needs the reader's own text",
}
# Runs of the quickstart are long; a few steps show that a command works.
STEPS = "--config.train.num_steps=20 --config.train.eval_every=10"


def reason_to_skip(command):
  for pattern, reason in SKIPPED.items():
    if re.search(pattern, command):
      return reason
  return None


def shortened(command):
  """Return a training command with few steps."""
  if re.match(r"(\S+=\S+ )*(python train\.py|lmjax train)", command):
    command = re.sub(r"--config\.train\.num_steps=\S+", "", command)
    return f"{command} {STEPS}"
  return command


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
  """A copy of the repository with the run that pages start from."""
  folder = tmp_path_factory.mktemp("checkout")
  ignore = shutil.ignore_patterns(".git", ".venv*", "site", "runs", "build")
  shutil.copytree(ROOT, folder, ignore=ignore, dirs_exist_ok=True)
  for name, config in (("quickstart", "quickstart"), ("a", "char_transformer")):
    run(
      folder,
      f"python train.py --config=configs/{config}.py --workdir=runs/{name} "
      f"{STEPS}",
    )
  return folder


def run(folder, command):
  path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
  environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
  ended = subprocess.run(
    ["bash", "-c", command],
    cwd=folder,
    env=environment,
    capture_output=True,
    text=True,
    timeout=900,
    stdin=subprocess.DEVNULL,
  )
  assert ended.returncode == 0, f"{command}\n{ended.stderr[-2000:]}"
  return ended


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_run(page, checkout):
  for command in commands(page):
    if not reason_to_skip(command):
      run(checkout, shortened(command))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page, checkout, monkeypatch):
  monkeypatch.chdir(checkout)
  for block in blocks(page, "python"):
    if ">>>" not in block or "openai" in block:
      continue  # a server is needed; see tests/serving
    example = doctest.DocTestParser().get_doctest(block, {}, page.name, None, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example)
    assert not runner.summarize(verbose=False).failed


def test_skipped_commands_exist():
  """A pattern that matches no command is obsolete."""
  every = [command for page in PAGES for command in commands(page)]
  assert not [p for p in SKIPPED if not any(re.search(p, c) for c in every)]
