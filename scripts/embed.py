# SPDX-License-Identifier: Apache-2.0
"""Show word vectors of a run or a file, or export them."""

from lmjax.cli.main import run_command

run_command("embed")
