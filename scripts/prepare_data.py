# SPDX-License-Identifier: Apache-2.0
"""Convert text or JSONL into a TFDS dataset (array_record, sharded)."""

from lmjax.cli.main import run_command

run_command("prepare_data")
