# SPDX-License-Identifier: Apache-2.0
"""Checks of the section `loss` that several tasks share."""

from ml_collections import ConfigDict

from lmjax.errors import UsageError


def check_loss_is_unused(config: ConfigDict, reason: str = "") -> None:
  """Check that the options of the softmax loss have their defaults.

  Args:
    config: the config of a run.
    reason: the setting under which they are not read; empty for the task.

  Raises:
    UsageError: if one of them is set.
  """
  for name, value in config.loss.items():
    if value:
      raise UsageError(
        f"loss.{name}={value} is not read by "
        f"{reason or f'task={config.task}'}; set it to 0."
      )
