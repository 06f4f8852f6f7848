#!/bin/sh
# Check the project as CI does: ruff, mypy, shellcheck, pytest. Arguments go to pytest.
# On first use makes .venv from requirements-dev.txt.
set -eu

ROOT=$(dirname -- "$(readlink -f -- "$0")")
. "$ROOT/etl/environment.sh"

make_environment "$ROOT/requirements-dev.txt" "$ROOT/.venv"
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
.venv/bin/shellcheck -x ./*.sh etl/*.sh .ci/run
exec "$PYTHON" -m pytest "$@"
