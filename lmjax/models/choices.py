# SPDX-License-Identifier: Apache-2.0
"""Settings that name one of several things."""

from collections.abc import Collection

from ml_collections import ConfigDict

from lmjax.errors import UsageError


def check_choice(model: ConfigDict, key: str, choices: Collection[str]) -> None:
  """See that a key of the section `model` has one of the values it may have.

  Raises:
    UsageError: naming all of them.
  """
  _check(f"model.{key}", model[key], choices)


def check_option(
  config: ConfigDict, name: str, choices: Collection[str]
) -> None:
  """See the same of a key of any section, by its dotted name.

  Raises:
    UsageError: naming all of them.
  """
  section, key = name.split(".")
  _check(name, config[section][key], choices)


def _check(name: str, value: str, choices: Collection[str]) -> None:
  if value not in choices:
    raise UsageError(
      f"{name}={value} is not known; choose one of {', '.join(choices)}."
    )
