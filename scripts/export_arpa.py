# SPDX-License-Identifier: Apache-2.0
"""Write the n-gram model of a run as an ARPA file."""

from lmjax.cli.main import run_command

run_command("export_arpa")
