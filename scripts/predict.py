# SPDX-License-Identifier: Apache-2.0
"""Predict records with a run; prints one line per record."""

from lmjax.cli.main import run_command

run_command("predict")
