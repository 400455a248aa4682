# SPDX-License-Identifier: Apache-2.0
"""Errors that users can correct, and checks that raise them."""

from collections.abc import Iterable

INT32_MAX = 2**31 - 1


class UserError(Exception):
  """A mistake that the user can correct: one sentence that says what to do.

  Commands print it to stderr and exit with `exit_code`, without a traceback.
  """

  exit_code = 1


class UsageError(UserError):
  """An invalid argument, flag or config."""

  exit_code = 2


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
  """Check that a value is one of several names.

  Configs are checked when they are finalized; this is for classes that are
  also constructed directly.

  >>> check_choice("norm", "rmsnorm", ("layer", "rms"))
  UsageError: norm=rmsnorm is invalid: expected one of layer, rms.

  Raises:
    UsageError: if it is another name.
  """
  if value not in choices:
    raise UsageError(
      f"{name}={value} is invalid: expected one of {', '.join(choices)}."
    )


def check_positive(**counts: int) -> None:
  """Check that counts are at least 1 and fit into an int32.

  Raises:
    UsageError: naming the first that is out of range.
  """
  for name, count in counts.items():
    if count < 1:
      raise UsageError(f"{name}={count} must be at least 1.")
    if count > INT32_MAX:
      raise UsageError(f"{name}={count} must be at most {INT32_MAX:,}.")
