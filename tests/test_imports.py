# SPDX-License-Identifier: Apache-2.0
"""The import order of the packages, and what the core never imports."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "lmjax"

# Each package or module imports only from those above it. A package that is
# not listed fails the test: its place must be decided.
ORDER = (
  "types",
  "errors",
  "tree",
  "strict_json",
  "platform",
  "losses",
  "train_state",
  "ops",
  "parallel",
  "layers",
  "ngrams",
  "models",
  "data",
  "metrics",
  "optim",
  "decoding",
  "tasks",
  "task_specs",
  "config",
  "interpretability",
  "prediction",
  "generation",
  "scoring",
  "experiment",
  "training",
  "run",
  "guidance",
  "serving",
  "cli",
)
# Above the order, a package does not use everything that it could.
NEVER = {
  "ops": {"flax"},
  "ngrams": {"jax", "flax"},
  "data": {"lmjax.models", "lmjax.ops", "lmjax.parallel"},
  "tasks": {"lmjax.models", "lmjax.data", "ml_collections"},
  "layers": {"ml_collections"},
  "decoding": {"lmjax.models", "lmjax.data", "ml_collections"},
  "optim": {"lmjax.models"},
}
# The only package whose functions may import from below it in ORDER: its
# loaders, which run when every package is importable.
LOADERS = {"task_specs"}
# A module name that is not a literal, so that no test can check it. Only cli,
# at the end of the order, may import by such a name.
COMPUTED = "<computed>"


def imported_by(node: ast.AST, package: str) -> list[str]:
  """List the modules that a syntax node imports, by their full names."""
  if isinstance(node, ast.Import):
    return [alias.name for alias in node.names]
  if isinstance(node, ast.ImportFrom):
    base = node.module or ""
    if node.level:
      parents = package.split(".")[: len(package.split(".")) - node.level + 1]
      base = ".".join([*parents, *filter(None, [node.module])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]
  if isinstance(node, ast.Call):
    return imported_by_call(node, package)
  return []


def imported_by_call(node: ast.Call, package: str) -> list[str]:
  """List the module that a call of `import_module` or `__import__` imports.

  A name that is computed cannot be checked; it is returned as COMPUTED.
  """
  function = getattr(node.func, "attr", getattr(node.func, "id", ""))
  if function not in ("import_module", "__import__"):
    return []
  keywords = {word.arg: word.value for word in node.keywords}
  name = node.args[0] if node.args else keywords.get("name")
  if not isinstance(name, ast.Constant):
    return [COMPUTED]
  if not name.value.startswith("."):
    return [name.value]
  anchor = node.args[1] if node.args[1:] else keywords.get("package")
  if isinstance(anchor, ast.Constant):
    package = anchor.value
  elif getattr(anchor, "id", "") != "__package__":
    return [COMPUTED]
  return [importlib.util.resolve_name(name.value, package)]


def imports(source: str, package: str, loaders: bool = False) -> set[str]:
  """List what a file imports, in any form and at any depth.

  Args:
    source: the code.
    package: dotted name of the package that the file is in.
    loaders: leave out imports inside functions.
  """
  tree = ast.parse(source)
  skipped = set()
  if loaders:
    for node in ast.walk(tree):
      if isinstance(node, ast.FunctionDef):
        skipped.update(ast.walk(node))
  return {
    name
    for node in ast.walk(tree)
    if node not in skipped
    for name in imported_by(node, package)
  }


def files_of(name: str) -> list[Path]:
  path = ROOT / name
  return sorted(path.rglob("*.py")) if path.is_dir() else [ROOT / f"{name}.py"]


def package_of(file: Path) -> str:
  return ".".join(("lmjax", *file.relative_to(ROOT).parent.parts))


def test_every_package_and_module_is_listed():
  found = {
    path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()
  }
  found |= {path.stem for path in ROOT.glob("*.py")} - {"__init__"}
  assert found == set(ORDER)
  folders = [p for p in ROOT.rglob("*") if p.is_dir() and any(p.glob("*.py"))]
  assert all((folder / "__init__.py").exists() for folder in folders)


@pytest.mark.parametrize("name", ORDER)
def test_packages_import_only_from_above(name):
  below = ORDER[ORDER.index(name) + 1 :]
  for file in files_of(name):
    text = file.read_text()
    for module in imports(text, package_of(file), name in LOADERS):
      parts = module.split(".")
      assert module != COMPUTED or name == ORDER[-1], file
      assert parts[0] != "configs", f"{file} imports {module}"
      if parts[0] == "lmjax" and len(parts) > 1:
        assert parts[1] not in below, f"{file} imports {module}"


@pytest.mark.parametrize("name", NEVER)
def test_packages_do_without(name):
  for file in files_of(name):
    for module in imports(file.read_text(), package_of(file)):
      for never in NEVER[name]:
        inside = module == never or module.startswith(never + ".")
        assert not inside, f"{file} imports {module}"


def test_nothing_imports_tensorflow_or_torch():
  for file in ROOT.rglob("*.py"):
    for module in imports(file.read_text(), package_of(file)):
      top = module.split(".")[0]
      assert top not in ("tensorflow", "torch"), f"{file} imports {module}"


@pytest.mark.parametrize(
  "source",
  [
    "import tensorflow",
    "import tensorflow as tf",
    "import numpy, tensorflow.keras as keras",
    "from tensorflow import io",
    "from tensorflow.io import gfile as files",
    "def f():\n  import tensorflow as tf",
    "import importlib\nimportlib.import_module('tensorflow')",
    "import importlib\nimportlib.import_module(name='tensorflow.io')",
    "__import__('tensorflow')",
    "class A:\n  import tensorflow as tf",
    "async def f():\n  from tensorflow import io",
  ],
)
def test_every_form_of_import_is_detected(source):
  names = imports(source, "lmjax.data")
  assert any(name.split(".")[0] == "tensorflow" for name in names)


def test_relative_imports_are_resolved():
  assert "lmjax.data.loader" in imports("from . import loader", "lmjax.data")
  assert "lmjax.run" in imports("from ..run import Run", "lmjax.data")
  assert "lmjax.run" in imports("from ... import run", "lmjax.data.text")


def test_relative_names_given_to_import_module_are_resolved():
  source = "import_module('.run', 'lmjax')"
  assert "lmjax.run" in imports(source, "lmjax.data")
  source = "import_module(name='..run', package=__package__)"
  assert "lmjax.run" in imports(source, "lmjax.data")


@pytest.mark.parametrize(
  "source", ["import_module(name)", "__import__(f'lmjax.{x}')"]
)
def test_computed_module_names_are_reported(source):
  assert COMPUTED in imports(source, "lmjax.data")


def test_defaults_import_only_ml_collections_and_declarations():
  """A loaded config file must not wait for JAX, nor close an import cycle."""
  allowed = (
    "collections",
    "dataclasses",
    "ml_collections",
    "lmjax.config.model_keys",
    "lmjax.task_specs",
  )
  for name in ("defaults", "model_keys"):
    source = (ROOT / "config" / f"{name}.py").read_text()
    for module in imports(source, "lmjax.config"):
      inside = (module == a or module.startswith(a + ".") for a in allowed)
      assert any(inside), f"{name}.py imports {module}"


@pytest.mark.parametrize("module", ["lmjax", "lmjax.config.defaults"])
def test_importing_a_config_does_not_load_jax(module):
  program = f"import {module}, sys; print(*sys.modules)"
  command = [sys.executable, "-c", program]
  ended = subprocess.run(command, capture_output=True, text=True, check=True)
  loaded = {name.split(".")[0] for name in ended.stdout.split()}
  assert loaded.isdisjoint({"jax", "flax", "numpy", "optax", "tensorflow"})


def test_importing_lmjax_loads_no_other_package_of_it():
  source = (ROOT / "__init__.py").read_text()
  for node in ast.parse(source).body:
    for module in imported_by(node, "lmjax"):
      assert not module.startswith("lmjax"), module


def test_loaders_are_imports_inside_functions():
  source = "import jax\ndef load():\n  from lmjax.run import Run"
  assert "lmjax.run" not in imports(source, "lmjax.task_specs", loaders=True)
  assert "jax" in imports(source, "lmjax.task_specs", loaders=True)
  source = "class A:\n  import lmjax.run as run"
  assert "lmjax.run" in imports(source, "lmjax.task_specs", loaders=True)
