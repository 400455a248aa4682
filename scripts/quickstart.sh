#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh machine to generated text: installs, trains a character LSTM on
# the documentation inside Python, evaluates it, and prints samples.
#
#   bash scripts/quickstart.sh [folder of the run]
set -euo pipefail
workdir=$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/../runs/quickstart}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
.venv/bin/python train.py --config=configs/quickstart.py --workdir="$workdir"
.venv/bin/python scripts/evaluate.py --workdir="$workdir" --split=test
.venv/bin/python scripts/sample.py --workdir="$workdir" \
  --prompt="The " --num_tokens=400 --num_samples=2 --temperature=0.6
