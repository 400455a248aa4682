# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmjax.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent.parent


def lmjax(*arguments, code="from lmjax.cli.main import main; main()"):
  return subprocess.run(
    [sys.executable, "-c", code, *arguments],
    capture_output=True,
    text=True,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    timeout=120,
  )


def test_help_lists_every_command_without_importing_jax():
  code = (
    "import sys; from lmjax.cli.main import main; main(); "
    "assert 'jax' not in sys.modules"
  )
  ended = lmjax("--help", code=code)
  assert ended.returncode == 0, ended.stderr
  folder = ROOT / "lmjax" / "cli" / "commands"
  modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
  assert modules == COMMANDS.keys()
  for name in COMMANDS:
    assert f"\n  {name} " in ended.stdout


@pytest.mark.parametrize(
  ("name", "hint"), [("trian", "did you mean train?"), ("x", "lmjax --help")]
)
def test_an_unknown_command_is_one_sentence(name, hint):
  ended = lmjax(name)
  assert ended.returncode == 2 and ended.stderr.count("\n") == 1
  assert hint in ended.stderr


def test_a_command_parses_its_own_flags():
  ended = lmjax("sample", "--workdri=x")
  assert ended.returncode == 2 and "workdri" in ended.stderr
  assert "Traceback" not in ended.stderr
