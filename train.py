# SPDX-License-Identifier: Apache-2.0
"""Train a config, or resume its run."""

from lmjax.cli.main import run_command

run_command("train")
