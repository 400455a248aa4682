# SPDX-License-Identifier: Apache-2.0
"""Generate text from a run."""

from lmjax.cli.main import run_command

run_command("sample")
