#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build the documentation into site/, or serve it while it is edited.
#
#   bash scripts/docs.sh [serve]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
requirements=scripts/requirements-docs.txt
stamp=.venv-docs/installed-$(cksum <"$requirements" | tr ' ' -)
if [ ! -e "$stamp" ]; then
  [ -x .venv-docs/bin/python ] || "$python" -m venv .venv-docs
  echo "installing into $PWD/.venv-docs ..." >&2
  .venv-docs/bin/python -m pip install --quiet --disable-pip-version-check \
    -r "$requirements"
  touch "$stamp"
fi
if [ "${1:-}" = serve ]; then
  exec .venv-docs/bin/mkdocs serve
fi
# --strict: a broken link or an unknown API name fails the build.
exec .venv-docs/bin/mkdocs build --strict --quiet
