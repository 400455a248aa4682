#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install what the tests need and run them.
#
#   bash scripts/test.sh [--slow] [arguments of pytest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh scripts/requirements-test.txt
marks=(-m "not slow")
if [ "${1:-}" = --slow ]; then
  marks=()
  shift
fi
exec .venv/bin/python -m pytest -n auto --dist loadfile "${marks[@]}" "$@"
