# SPDX-License-Identifier: Apache-2.0
"""Attribute a prediction to the tokens of a text."""

from lmjax.cli.main import run_command

run_command("explain")
