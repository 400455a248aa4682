# SPDX-License-Identifier: Apache-2.0
"""The wheel, installed into a fresh environment and used from elsewhere."""

import json
import os
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CONFIG = """
from lmjax.config import defaults

def get_config():
  config = defaults.get_config(model="lstm")
  config.model.width, config.model.num_layers = 16, 1
  config.data.seq_len, config.data.batch_size = 16, 4
  config.train.num_steps, config.train.eval_batches = 4, 1
  config.train.preview_every = 0
  return config
"""


def run(*command, **options):
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  ended = subprocess.run(
    command, capture_output=True, text=True, env=environment, **options
  )
  assert ended.returncode == 0, ended.stderr
  return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  folder = tmp_path_factory.mktemp("wheel")
  pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
  run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
  (path,) = folder.glob("lmjax-*.whl")
  return path


@pytest.mark.slow
def test_wheel_holds_one_package_with_its_data(wheel):
  names = zipfile.ZipFile(wheel).namelist()
  tops = {name.split("/")[0] for name in names}
  assert {top for top in tops if not top.endswith(".dist-info")} == {"lmjax"}
  assert "lmjax/serving/page.html" in names and "lmjax/py.typed" in names


@pytest.mark.slow
def test_installed_package_trains_samples_and_serves(wheel, tmp_path):
  run(sys.executable, "-m", "venv", tmp_path / "venv")
  python = tmp_path / "venv" / "bin" / "python"
  run(python, "-m", "pip", "install", "--quiet", wheel)
  lmjax = tmp_path / "venv" / "bin" / "lmjax"
  (tmp_path / "configs").mkdir()  # must not shadow anything
  (tmp_path / "configs" / "__init__.py").write_text("raise ImportError")
  (tmp_path / "mine.py").write_text(CONFIG)
  here = dict(cwd=tmp_path)
  run(lmjax, "train", "--config=mine.py", "--workdir=runs/a", **here)
  flags = ["--workdir=runs/a", "--prompt=The ", "--num_tokens=5"]
  assert run(lmjax, "sample", *flags, **here).startswith("The ")
  script = (
    "import lmjax, mine; run = lmjax.train(mine.get_config(), 'runs/b');"
    "print(lmjax.__version__, run.step)"
  )
  assert run(python, "-c", script, **here).split()[-1] == "4"
  server = subprocess.Popen(
    [lmjax, "serve", "--workdir=runs/a", "--port=18431", "--warm_up=0"], **here
  )
  try:
    for _ in range(120):
      try:
        page = urllib.request.urlopen("http://127.0.0.1:18431/", timeout=5)
        break
      except OSError:
        time.sleep(0.5)
    assert b"<html" in page.read().lower()
    body = json.dumps({"prompt": "The ", "max_tokens": 3}).encode()
    request = urllib.request.Request(
      "http://127.0.0.1:18431/v1/completions",
      body,
      {"Content-Type": "application/json"},
    )
    answer = json.load(urllib.request.urlopen(request, timeout=60))
    assert answer["choices"][0]["text"]
  finally:
    server.terminate()
    server.wait()
