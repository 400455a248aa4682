#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make .venv beside this repository and install lmjax into it (editable), with
# the requirements files given as arguments. Does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: lmjax needs Python 3.11 or newer; set PYTHON to one." >&2
  exit 1
fi

files=(requirements.txt "$@")
stamp=.venv/installed-$(cat pyproject.toml "${files[@]}" | cksum | tr ' ' -)
[ -e "$stamp" ] && exit 0

[ -x .venv/bin/python ] || "$python" -m venv .venv
arguments=()
for file in "${files[@]}"; do arguments+=(-r "$file"); done
echo "installing into $PWD/.venv ..." >&2
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
  "${arguments[@]}" -e .
touch "$stamp"
