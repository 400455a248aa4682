# SPDX-License-Identifier: Apache-2.0
"""Fill the blanks of a text."""

from lmjax.cli.main import run_command

run_command("fill")
