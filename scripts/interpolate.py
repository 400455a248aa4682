# SPDX-License-Identifier: Apache-2.0
"""Interpolate language models linearly; weights are fitted on validation."""

from lmjax.cli.main import run_command

run_command("interpolate")
