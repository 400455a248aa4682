# SPDX-License-Identifier: Apache-2.0
"""Serve a run over HTTP with the OpenAI completions API."""

from lmjax.cli.main import run_command

run_command("serve")
