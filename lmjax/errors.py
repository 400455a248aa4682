# SPDX-License-Identifier: Apache-2.0
"""The one exception that reaches a user, and how it leaves the program."""


class UserError(Exception):
  """Something that the user can correct: one sentence that says what to do.

  Command lines print it on stderr and exit with `exit_code`, without a
  traceback.
  """

  exit_code = 1


class UsageError(UserError):
  """A command line or a configuration that asks for what does not exist."""

  exit_code = 2
