# SPDX-License-Identifier: Apache-2.0
"""Search texts with a query; prints one JSON line per query."""

from lmjax.cli.main import run_command

run_command("retrieve")
