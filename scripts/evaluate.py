# SPDX-License-Identifier: Apache-2.0
"""Evaluate a run on a split; prints one JSON object."""

from lmjax.cli.main import run_command

run_command("evaluate")
