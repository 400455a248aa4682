# SPDX-License-Identifier: Apache-2.0
"""Config files that build on other config files."""

import importlib.util
from pathlib import Path
from types import ModuleType

from lmjax.errors import UsageError


def load_neighbor(file: str, name: str) -> ModuleType:
  """Import a config file by its location next to another one.

  Config files are not a package: they work from any directory, and those of a
  user cannot shadow or be shadowed by others of the same name.

  >>> char_lstm = load_neighbor(__file__, "char_lstm.py")
  >>> config = char_lstm.get_config()

  Args:
    file: `__file__` of the importing config.
    name: file name in the same directory.

  Raises:
    UsageError: if there is no such file.
  """
  path = Path(file).resolve().with_name(name)
  if not path.is_file():
    raise UsageError(f"{file} builds on {path}, which does not exist.")
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
