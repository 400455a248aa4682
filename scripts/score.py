# SPDX-License-Identifier: Apache-2.0
"""Score texts token by token."""

from lmjax.cli.main import run_command

run_command("score")
