# SPDX-License-Identifier: Apache-2.0
"""Who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "lmjax"

# Room → the rooms of lmjax that it may import, itself always among them.
GROUND = {"types", "errors", "tree"}
MAY_IMPORT = {
  "types": set(),
  "errors": set(),
  "tree": GROUND,
  "platform": set(),
  "ops": GROUND,
  "layers": GROUND | {"ops"},
  "ngrams": GROUND,
  "models": GROUND | {"ops", "layers", "ngrams"},
  "losses": GROUND,
  "metrics": GROUND,
  "optim": GROUND,
  "data": GROUND,
  "tasks": GROUND | {"losses", "metrics", "ops", "decoding"},
  "decoding": GROUND,
  "parallel": GROUND | {"train_state"},
  "train_state": GROUND,
  "interpretability": GROUND | {"data", "layers"},
  "serving": GROUND | {"data", "decoding", "generation", "strict_json"},
  "training.step": GROUND | {"metrics", "tasks", "train_state"},
}


def imports(path: Path) -> set[str]:
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      names.add(node.module)
      names.update(f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
  return {name.removeprefix("lmjax.") for name in names if "lmjax." in name}


def within(name: str, rooms: set[str]) -> bool:
  return any(name == room or name.startswith(room + ".") for room in rooms)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_room_imports_only_what_it_may(room):
  path = ROOT / room.replace(".", "/")
  files = [path.with_suffix(".py")] if not path.is_dir() else path.rglob("*.py")
  allowed = MAY_IMPORT[room] | {room}
  for file in files:
    assert file.exists()
    for name in imports(file):
      module = ROOT / name.replace(".", "/")
      if module.is_dir() or module.with_suffix(".py").exists():
        assert within(name, allowed), f"{file.name} imports lmjax.{name}"


def test_configs_stop_at_the_border():
  for room in ("ops", "layers", "decoding", "tasks"):
    for file in (ROOT / room).glob("*.py"):
      assert "ml_collections" not in file.read_text(), file


def test_ngrams_are_counted_without_jax():
  for file in (ROOT / "ngrams").glob("*.py"):
    assert "import jax" not in file.read_text(), file


def test_tasks_and_parallel_build_nothing_from_tensorflow_or_torch():
  for file in ROOT.rglob("*.py"):
    text = file.read_text()
    assert "import tensorflow\n" not in text and "import torch" not in text
