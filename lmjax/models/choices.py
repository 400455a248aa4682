# SPDX-License-Identifier: Apache-2.0
"""Settings of a model that name one of several things."""

from collections.abc import Collection

from ml_collections import ConfigDict

from lmjax.errors import UsageError


def check_choice(model: ConfigDict, key: str, choices: Collection[str]) -> None:
  """See that a key of the section `model` has one of the values it may have.

  Raises:
    UsageError: naming all of them.
  """
  if model[key] not in choices:
    raise UsageError(
      f"model.{key}={model[key]} is not known; choose one of "
      f"{', '.join(choices)}."
    )
