#!/bin/sh
# Check the project as CI does: ruff, mypy, shellcheck, pytest. Arguments go to pytest.
# On first use makes .venv from requirements.txt.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
. "$ROOT/etl/environment.sh"

make_environment "$ROOT/requirements.txt"
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
.venv/bin/shellcheck -x ./*.sh etl/*.sh .ci/run
exec "$PYTHON" -m pytest "$@"
